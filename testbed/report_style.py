"""How a report looks: on a screen, wide or narrow, and on paper, with colours and without."""

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de;
  --blue: #0b5394; --brown: #9a3412; --paper: #fff; --tint: #f6f8fa; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 "DejaVu Sans", Verdana, Geneva, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
section.claim { border-top: 2px solid var(--ink); margin-top: 3rem; }
section.claim > h2 { margin-top: 1rem; }
.id { color: var(--soft); font-weight: normal; margin-right: .4em; }
p, ul, ol, dl { margin: .5rem 0; }
a { color: var(--blue); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
.soft { color: var(--soft); }
blockquote { margin: .75rem 0; padding: .1rem 0 .1rem 1rem; border-left: 4px solid var(--line); }
blockquote footer { color: var(--soft); font-size: .85rem; }
code, pre { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { background: var(--tint); border: 1px solid var(--line); padding: .75rem; margin: .5rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .5rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { border: 1px solid var(--line); padding: .35rem .55rem; text-align: left; vertical-align: top; }
th { background: var(--tint); font-weight: bold; }
thead .predicted { font-weight: normal; overflow-wrap: anywhere; }
tbody th { font-weight: normal; background: none; }
td.number { overflow-wrap: anywhere; min-width: 6rem; }
.verdict { display: inline-block; padding: 0 .45em; border: 2px solid currentColor; border-radius: 4px; font-weight: bold;
  font-size: .8rem; white-space: nowrap; }
.verdict.HOLDS { color: var(--blue); }
.verdict.REFUTED { color: var(--brown); border-style: double; border-width: 4px; }
.verdict.INCONCLUSIVE { color: var(--ink); border-style: dashed; }
.predicted, .unlike, .missing { display: block; font-size: .8rem; margin-top: .2rem; }
.predicted, .missing { color: var(--soft); }
.unlike { color: var(--brown); font-weight: bold; }
td.missing, td.unlike { display: table-cell; font-size: inherit; }
td.unlike { background: #fdf3ec; }
.missing.whole { font-style: italic; margin: 0; }
figure { margin: 1rem 0; }
figure svg { display: block; }
figcaption { color: var(--soft); font-size: .86rem; margin-top: .4rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .86rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.summary { font-size: 1.05rem; }
@media (max-width: 600px) {
  body { padding: 1rem .8rem 3rem; font-size: 15px; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .35rem; }
}
@media print {
  @page { size: A4; margin: 14mm 13mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .skip, nav { display: none; }
  .scroll { overflow: visible; }
  figure svg { max-width: 100%; height: auto; max-height: 250mm; }
  section.claim { break-before: page; margin-top: 0; border-top: 0; }
  figure, blockquote, tr, pre { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  thead { display: table-header-group; }
  table { font-size: 8pt; }
  th, td { padding: .12rem .3rem; }
  .verdict { font-size: 7pt; border-width: 1.5px; line-height: 1.3; }
  .verdict.REFUTED { border-width: 3px; }
  .predicted, .unlike, .missing { font-size: 7.5pt; margin-top: 0; }
  #matrix td .predicted { white-space: nowrap; }
  td.number { min-width: 0; }
  details:not([open]) { display: none; }
  a { color: inherit; text-decoration: none; }
}
"""
