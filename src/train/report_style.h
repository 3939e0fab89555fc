// The style sheet of report.html.
#pragma once

namespace zebra {

inline constexpr const char* kReportStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1d2329; --muted: #66717c; --rule: #dde2e7; --panel: #f6f7f9;
  --attention: #7b8794; --mla: #b5562b; --mamba2: #256d85; --quiet: #b9c2cb;
  --c0: #256d85; --c1: #b5562b; --c2: #5d7a2f; --c3: #7a4f96;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --text: #e3e7eb; --muted: #95a0ab; --rule: #2f363d; --panel: #1d2126;
    --attention: #8b97a3; --mla: #e08a5b; --mamba2: #5fb0c9; --quiet: #4a545e;
    --c0: #5fb0c9; --c1: #e08a5b; --c2: #a3c06b; --c3: #bd93d8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 40px 28px 64px; max-width: 1116px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 44px 0 4px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 18px; }
h3 { margin: 22px 0 6px; font-size: 15px; }
p { margin: 4px 0 12px; max-width: 76ch; }
p.about, .note { color: var(--muted); }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 0; }
.fact { flex: 1 1 190px; padding: 12px 14px; border-radius: 6px; background: var(--panel); }
.fact b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.fact span { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
table.full { width: 100%; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
th {
  color: var(--muted); font-weight: 500; font-size: 13px; line-height: 1.25;
  vertical-align: bottom;
}
thead th { border-bottom: 1px solid var(--rule); }
tbody tr + tr td { border-top: 1px solid var(--rule); }
tbody tr:last-child td { border-bottom: 1px solid var(--rule); }
.side { display: flex; flex-wrap: wrap; gap: 0 56px; }
.layers { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0; }
.box {
  min-width: 76px; padding: 5px 8px; border-radius: 4px; color: #fff; font-size: 12px;
  line-height: 1.3; background: var(--quiet);
}
.box b { display: block; font-size: 11px; font-weight: 500; opacity: .8; }
.box.attention { background: #6b7783; } .box.mla { background: #a94f27; }
.box.mamba2 { background: #256d85; }
.charts {
  display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 22px 20px;
  margin-top: 12px;
}
.chart { display: block; width: 100%; height: auto; }
.charts .wide { grid-column: span 2; }
.lone { max-width: 700px; margin-top: 12px; }
@media (max-width: 860px) {
  .charts { grid-template-columns: minmax(0, 1fr); } .charts .wide { grid-column: auto; }
}
svg text { fill: var(--text); font: 12px system-ui, "Segoe UI", Roboto, sans-serif; }
svg .title { font-weight: 600; } svg .tick { fill: var(--muted); font-size: 10.5px; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } svg .band { opacity: .18; }
svg .line.c0 { stroke: var(--c0); } svg .line.c1 { stroke: var(--c1); }
svg .line.c2 { stroke: var(--c2); } svg .line.c3 { stroke: var(--c3); }
svg .band.c0, svg .key.c0 { fill: var(--c0); } svg .band.c1, svg .key.c1 { fill: var(--c1); }
svg .band.c2, svg .key.c2 { fill: var(--c2); } svg .band.c3, svg .key.c3 { fill: var(--c3); }
svg rect.mla { fill: var(--mla); } svg rect.mamba2 { fill: var(--mamba2); }
svg rect.attention { fill: var(--attention); } svg rect.quiet { fill: var(--quiet); }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--muted); }
pre {
  overflow-x: auto; padding: 14px 16px; border-radius: 6px; background: var(--panel);
  font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media print { body { padding: 0; } h2 { break-after: avoid; } .chart { break-inside: avoid; } }
)css";

}  // namespace zebra
