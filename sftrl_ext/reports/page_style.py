"""The style sheet of the HTML report."""

from __future__ import annotations

from html import escape


def arm_classes(kind: str) -> str:
    """CSS class of the label of an arm of a kind: the kind's own if it has one."""
    return kind if kind in ("sft", "rl", "init", "base") else "other"


def html_document(title: str, body: str) -> str:
    """A page that needs nothing else.

    Args:
        title: Its title, as plain text.
        body: Its content, as HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


CSS = """
:root { --ink: #222; --soft: #666; --line: #e2e2e2; --back: #fff; --pale: #f6f6f4; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { font-size: 1.7rem; margin: 0 0 .8rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .2rem; }
h4 { font-size: .9rem; font-weight: 500; margin: 0 0 .5rem; color: var(--soft); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88em; background: #eee;
  padding: 0 .3em; border-radius: 4px; }
.verdict { border-left: 6px solid #888; background: var(--pale); padding: .9rem 1.2rem; border-radius: 4px; }
.verdict p { font-size: 1.12rem; font-weight: 600; margin: 0 0 .4rem; }
.verdict ul { margin: 0; padding-left: 1.2rem; }
.verdict.appears { border-color: #009E73; } .verdict.partly { border-color: #E69F00; }
.verdict.absent { border-color: #7A3B5E; }
.notes { color: var(--soft); font-size: .92rem; margin-top: .8rem; }
.notes ul { padding-left: 1.2rem; margin: .4rem 0; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .3rem; }
details { margin: .9rem 0; } summary { cursor: pointer; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #bbb; }
.w { text-align: left; } .n { text-align: right; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.chip { display: inline-block; background: var(--pale); border: 1px solid var(--line); border-radius: 12px;
  padding: 0 .7em; margin-right: .4em; font-size: .85rem; }
img.hand { width: min(100%, 300px); border-radius: 6px; }
img.map, img.views { width: 100%; border-radius: 6px; }
.point { margin: .9rem 0 .2rem; font-size: .8rem; font-weight: 600; color: var(--soft);
  border-top: 1px solid var(--line); padding-top: .5rem; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 14px;
  align-items: start; }
.episode { border: 1px solid var(--line); border-radius: 8px; padding: .8rem; min-width: 0;
  max-height: 620px; overflow-y: auto; }
.arm { color: #fff; font-weight: 600; border-radius: 4px; padding: .1em .55em; background: #009E73; }
.arm.sft { background: #D55E00; } .arm.rl { background: #0072B2; } .arm.init { background: #555; }
.arm.base { background: #969696; }
.turn { margin: .5rem 0; padding: .45rem .65rem; border-radius: 6px; font-size: .84rem; }
.turn pre { margin: .25rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .95em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
.turn details { margin: 0; } .turn summary { font-weight: 400; }
.turn.user { background: var(--pale); margin-right: 8%; }
.turn.model { background: #eef4f9; margin-left: 8%; }
.who { color: var(--soft); font-size: .78rem; margin-right: .5em; }
.badge { font-size: .76rem; font-weight: 600; border-radius: 10px; padding: .1em .6em; }
.badge.good { background: #d5f0e6; color: #00563f; } .badge.bad { background: #f7dfd2; color: #8a3200; }
@media print { details { display: block; } }
"""
