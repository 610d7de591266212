"""The metric's Space: paste rankings and right answers, read the recall."""

import json
from pathlib import Path

import evaluate


HERE = Path(__file__).resolve().parent


def compute(rankings: str, right: str, k: str) -> dict:
    """The metric's result; all inputs are JSON lists."""
    metric = evaluate.load(str(HERE))
    return metric.compute(predictions=json.loads(rankings), references=json.loads(right), k=json.loads(k))


if __name__ == "__main__":
    import gradio as gr

    gr.Interface(
        compute,
        [
            gr.Textbox("[[1, 4], [5, 2], [0, 3]]", label="Rankings: per query the candidate ids, best first"),
            gr.Textbox("[[0, 1], [2, 3], [4, 5]]", label="Per query the ids of all right candidates"),
            gr.Textbox("[1, 2]", label="k"),
        ],
        gr.JSON(label="Result"),
        title="Retrieval recall",
        description="A query may have several right candidates; finding one of them is enough.",
    ).launch()
