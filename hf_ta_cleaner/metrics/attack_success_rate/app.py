"""The metric's Space: paste rankings and labels, read the rates."""

import json
from pathlib import Path

import evaluate


HERE = Path(__file__).resolve().parent


def compute(rankings: str, labels: str, target: float, k: str) -> dict:
    """The metric's result; rankings, labels and k are JSON lists."""
    metric = evaluate.load(str(HERE))
    return metric.compute(
        predictions=json.loads(rankings), references=json.loads(labels), target=int(target), k=json.loads(k)
    )


if __name__ == "__main__":
    import gradio as gr

    gr.Interface(
        compute,
        [
            gr.Textbox("[[2, 0], [0, 2], [1, 0], [2, 1]]", label="Rankings: per image the class ids, best first"),
            gr.Textbox("[0, 0, 1, 2]", label="True class ids"),
            gr.Number(2, label="Target class id", precision=0),
            gr.Textbox("[1, 2]", label="k"),
        ],
        gr.JSON(label="Result"),
        title="Attack success rate",
        description="Images of the target class do not count in asr_top{k}.",
    ).launch()
