"""The peers that CLASP is measured against, one file a method, each a selector of the runtime."""
