"""The page that a certificate is printed on: its frame and its style, without anything from elsewhere.

Owns the look only. ``PAGE`` has a place for each thing that printable.py fills in, already escaped.
"""

from __future__ import annotations

from typing import Final

CHART_WIDTH: Final = 720
CHART_HEIGHT: Final = 110

STYLE: Final = """
@page { size: A4; margin: 0 }
* { box-sizing: border-box }
body { margin: 0; background: #e9ece6; color: #1d2b22; font: 10.5pt/1.45 Georgia, "DejaVu Serif", serif }
main { width: 210mm; height: 297mm; margin: 8mm auto; padding: 12mm; background: #fffef9 }
article { height: 100%; padding: 12mm 14mm 8mm; border: 0.5mm solid #1d3b2a; outline: 0.2mm solid #b89b4a;
  outline-offset: -2mm; display: flex; flex-direction: column }
header, .amount, .statement { text-align: center }
h1 { margin: 0; font-size: 25pt; font-weight: normal; letter-spacing: 0.04em; color: #1d3b2a }
header p { margin: 1mm 0 0; letter-spacing: 0.22em; text-transform: uppercase; font-size: 8pt; color: #8a7433 }
.amount { margin: 7mm 0 0; font-size: 40pt; line-height: 1; color: #1d3b2a }
.statement { margin: 3mm 0 5mm; font-size: 14pt }
h2 { margin: 4mm 0 1.5mm; padding-bottom: 0.5mm; border-bottom: 0.2mm solid #b89b4a; font-size: 10pt;
  font-weight: normal; letter-spacing: 0.08em; text-transform: uppercase; color: #8a7433 }
h2 span { float: right; letter-spacing: 0; text-transform: none; color: #1d2b22 }
dl { display: grid; grid-template-columns: 26mm 1fr; gap: 0.6mm 3mm; margin: 0 }
dt { color: #5d6a60 }
dd { margin: 0; overflow-wrap: anywhere }
figure, .basis { margin: 0 }
figure svg { display: block; width: 100%; height: 28mm; fill: #3f7d55; stroke: none }
figure path { stroke: #1d3b2a; stroke-width: 1 }
figcaption { font-size: 8pt; color: #5d6a60; text-align: right }
table { width: 100%; border-collapse: collapse; font-size: 9.5pt }
th { text-align: left; font-weight: normal; color: #5d6a60; font-size: 8.5pt }
td, th { padding: 0.5mm 2mm 0.5mm 0; overflow-wrap: anywhere }
td:last-child, th:last-child { text-align: right; padding-right: 0; white-space: nowrap }
footer { margin-top: auto; display: flex; gap: 7mm; align-items: center; padding-top: 4mm }
footer > svg { width: 37mm; height: 37mm; flex: none }
footer p { margin: 0 0 1.5mm; font-size: 8.5pt }
code { font: 8pt/1.4 "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere }
@media print { body { background: none } main { margin: 0 } * { print-color-adjust: exact } }
"""

PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main><article>
<header><h1>Certificate of Provenance</h1><p>Wattprint · green energy, proved</p></header>
<p class="amount">{amount}</p>
<p class="statement">{statement}</p>
<dl>{facts}</dl>
<h2>Which hours <span>{hours}</span></h2>
{chart}
<h2>From where</h2>
<table><thead><tr><th>Site</th><th>Technology</th><th>Zone</th><th>Meter</th><th>Energy</th></tr></thead>
<tbody>{sources}</tbody></table>
<h2>Who says so</h2>
<p class="basis">{basis} {signatures} of {validators} validators of the chain {chain} signed that all this stood on the
ledger at height {height}, {time} UTC.</p>
<footer>{code}<div>
<p>Anybody can check this without asking anyone: take the certificate's file and the chain's genesis file, and run</p>
<p><code>wattprint certificate verify CERTIFICATE.json --genesis genesis.json</code></p>
<p>The file is the right one if its id, which is the hash of its content, is the one in the code:</p>
<p><code>{id}</code></p>
</div></footer>
</article></main>
</body>
</html>
"""
