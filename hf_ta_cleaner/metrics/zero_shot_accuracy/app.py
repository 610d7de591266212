"""The metric's Space: paste rankings and labels, read the accuracy."""

import json
from pathlib import Path

import evaluate


HERE = Path(__file__).resolve().parent


def compute(rankings: str, labels: str, k: str) -> dict:
    """The metric's result; all inputs are JSON lists."""
    metric = evaluate.load(str(HERE))
    return metric.compute(predictions=json.loads(rankings), references=json.loads(labels), k=json.loads(k))


if __name__ == "__main__":
    import gradio as gr

    gr.Interface(
        compute,
        [
            gr.Textbox("[[0, 1], [1, 2], [0, 2], [0, 1]]", label="Rankings: per image the class ids, best first"),
            gr.Textbox("[0, 1, 2, 2]", label="True class ids"),
            gr.Textbox("[1, 2]", label="k"),
        ],
        gr.JSON(label="Result"),
        title="Zero-shot accuracy",
    ).launch()
