"""What lmms-eval finds by the entry point ``lmms_eval.models``: the model ``clasp``."""

from lmms_eval.models.registry_v2 import ModelManifest

CLASP = ModelManifest(
    model_id="clasp",
    simple_class_path="clasp_calib.harness.lmms_model.ClaspSimple",
    chat_class_path="clasp_calib.harness.lmms_model.ClaspChat",
)
