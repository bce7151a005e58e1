/** The page's style sheet. System fonts: the page must work offline and weigh little. */
export const STYLE = `
:root { --text: #1f2933; --faint: #5f6b7a; --line: #e4e7eb; --back: #ffffff; --accent: #1d4ed8; --warn: #9a3412; --warn-back: #fff7ed; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6eaef; --faint: #9aa5b1; --line: #2c343d; --back: #14181d; --accent: #7aa2ff; --warn: #fdba74; --warn-back: #2a1d12; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 2.25rem 0 .25rem; }
.note { color: var(--faint); margin: .25rem 0 .75rem; max-width: 42rem; }
.headline { font-size: 1.15rem; margin: .75rem 0 1rem; }
.headline strong { font-variant-numeric: tabular-nums; }
.headline strong:first-child { color: var(--accent); font-size: 1.5rem; }
.error { color: var(--faint); white-space: nowrap; }
.badge { border-left: 4px solid var(--warn); background: var(--warn-back); color: var(--warn); padding: .6rem .9rem; border-radius: 4px; }
img { display: block; width: 100%; max-width: 760px; height: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0 0; font-size: .94rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .32rem .5rem; border-bottom: 1px solid var(--line); font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--faint); border-bottom-width: 2px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: .5rem 0; font-size: .94rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media print { article { break-before: page; } section { break-inside: avoid; } }
`;
