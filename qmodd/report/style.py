"""The style sheet of the report."""

from __future__ import annotations

from qmodd.report.svg import DARK, LIGHT


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}--page:#f4f6f8}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}--page:#10161d}}}}"
    # Paper is white, whatever the screen is.
    f"@media print{{:root{{{_variables(LIGHT)}--page:#fff}}"
    "article{break-inside:avoid-page;box-shadow:none!important}.skip{display:none}"
    "details>summary{display:none}details::details-content{content-visibility:visible;height:auto}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
header,main,footer{max-width:68rem;margin:0 auto;padding:1.5rem 1.25rem}
header{padding-bottom:0}
h1{font-size:1.8rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.35rem;margin:2rem 0 .75rem}
h3{font-size:1.1rem;margin:0 0 .5rem;display:flex;gap:.6rem;align-items:center;flex-wrap:wrap}
p{margin:.5rem 0;max-width:60rem}
a{color:var(--s0)}
a:focus-visible,summary:focus-visible{outline:3px solid var(--s0);outline-offset:2px}
.lead{font-size:1.1rem}
.fine,footer{color:var(--muted);font-size:.87rem}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--card);padding:.5rem}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
article,.graph,.refusals{background:var(--card);border-radius:10px;padding:1.1rem 1.25rem;margin:1rem 0;
box-shadow:0 1px 3px rgb(0 0 0/.14)}
.graph{overflow-x:auto}
figcaption{color:var(--muted);font-size:.87rem;margin-bottom:.5rem}
figure{margin:0}
.figures{display:flex;flex-wrap:wrap;gap:1.25rem;margin:1rem 0}
.figures figure{flex:1 1 22rem;min-width:0}
.equation{font-family:ui-monospace,"Cascadia Mono",Menlo,monospace;background:var(--page);border-radius:6px;
padding:.5rem .75rem;overflow-x:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.75rem 0;min-width:30rem}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--grid);vertical-align:top;
font-weight:400}
thead th{color:var(--muted);font-size:.82rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font-family:ui-monospace,"Cascadia Mono",Menlo,monospace;font-size:.88em}
summary{cursor:pointer;color:var(--s0)}
.badge{font-size:.8rem;font-weight:600;border:1px solid currentColor;border-radius:99px;padding:.05rem .6rem;
white-space:nowrap}
.ok{color:var(--ok)}.s0{color:var(--s0)}.due{color:var(--due)}.bad{color:var(--bad)}.muted{color:var(--muted)}
.legend{display:flex;gap:.6rem;flex-wrap:wrap}
.refusals,.why{border-left:4px solid var(--bad)}
.why{padding:.25rem .75rem}
.refusals ul{margin:.25rem 0;padding-left:1.2rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.35rem 1.5rem;margin:1rem 0 0;
font-size:.87rem;border-top:1px solid var(--grid);padding-top:.75rem}
.facts div{display:flex;gap:.6rem}
.facts dt{color:var(--muted);flex:0 0 6.5rem}
.facts dd{margin:0;overflow-wrap:anywhere}
"""
)
