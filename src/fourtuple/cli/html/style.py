"""How the pages look: colours of both schemes, one style sheet, a dozen lines of script for the switch of the scheme.

Rules
1. Text has a contrast of 4.5 or more on what it stands on, and at least 11 px; a test measures both in a browser.
2. Nothing is loaded: the fonts are the reader's own.
3. Wide columns show the wide picture of a pair, narrow ones the narrow one: pictures are not shrunk until they
   cannot be read.
"""

from __future__ import annotations

_COLORS = {
    # name: (light, dark)
    "page": ("#f4f6f9", "#0d1117"),
    "card": ("#ffffff", "#161b22"),
    "line": ("#d5dae1", "#30363d"),
    "text": ("#1b1f24", "#e6edf3"),
    "dim": ("#57606a", "#9da7b3"),
    "blue": ("#0757ba", "#6cb0ff"),
    "orange": ("#9a4a00", "#f0a35c"),
    "green": ("#116b2c", "#7ee787"),
    "red": ("#b42318", "#ff8a80"),
    "violet": ("#6f3fc4", "#c9a5ff"),
    "grey": ("#6a737d", "#8b949e"),
    "wash": ("#eceff4", "#1f2630"),
    "badge": ("#d9e8fc", "#1d3a66"),
    "badge-text": ("#0a3f85", "#bcdcff"),
    "on": ("#ffffff", "#0d1117"),
}


def _variables(scheme: int) -> str:
    return "".join(f"--{name}:{values[scheme]};" for name, values in _COLORS.items())


_LIGHT, _DARK = _variables(0), _variables(1)

_CLASSES = {
    "taken": "green",
    "used": "orange",
    "busy": "blue",
    "bound": "red",
    "reserved": "grey",
    "waiting": "violet",
}

_PORTS = "".join(
    f".cell.{name},.fill.{name}{{fill:var(--{color})}}.mark.{name}{{background:var(--{color});color:var(--on)}}"
    for name, color in _CLASSES.items()
)

_DEPTHS = "".join(f".d{n}{{--i:{n}}}" for n in range(8)) + "".join(
    f".all:checked~.path .v{n}{{--i:{n}}}" for n in range(8)
)

_DIAL = "".join(
    f".curve.{name},.percentile.{name}{{stroke:var(--{color})}}.bars.{name}{{fill:var(--{color})}}"
    f".swatch.{name}{{background:var(--{color})}}"
    for name, color in {
        "open": "blue",
        "established": "green",
        "failed": "red",
        "connect": "blue",
        "handshake": "green",
        "response": "violet",
        "passed": "orange",
        "p50": "text",
        "p99": "red",
    }.items()
)

STYLE = (
    f"""
:root{{color-scheme:light;{_LIGHT}
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}}
@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{_DARK}}}}}
:root[data-theme=dark]{{color-scheme:dark;{_DARK}}}
@media print{{:root,:root:not([data-theme=light]),:root[data-theme=dark]{{color-scheme:light;{_LIGHT}}}}}
"""
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:14px/1.45 var(--sans);-webkit-text-size-adjust:100%}
code,.mono{font-family:var(--mono)}
header,main,footer{max-width:1440px;margin:0 auto;padding:0 28px}
header{padding-top:26px;position:relative}
h1{font-size:25px;line-height:1.25;margin:0;padding-right:96px;overflow-wrap:anywhere;letter-spacing:-.01em}
h1 .remark{font-size:17px;font-weight:600;color:var(--orange);white-space:nowrap}
h1 .good,.good{color:var(--green)} h1 .bad,.bad{color:var(--red)} .warn{color:var(--orange)}
.dim,.note,.hint,.sub{color:var(--dim)}
.note{overflow-wrap:anywhere}
.port{color:var(--green);font-weight:700}
.sub{margin:6px 0 0;font-size:14px;overflow-wrap:anywhere}
h2{font-size:15px;margin:0 0 10px;overflow-wrap:anywhere}
h3{font-size:13px;margin:14px 0 5px}
p{margin:0 0 8px}
main{display:grid;grid-template-columns:minmax(0,1fr);gap:18px;padding-top:20px;padding-bottom:10px}
@media (min-width:1080px){main.two,.demo .two{grid-template-columns:minmax(0,1fr) minmax(0,1fr);align-items:start}}
.column{display:grid;gap:18px;min-width:0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;min-width:0}
.figure{container-type:inline-size;margin:0 auto}
.figure svg{display:block;width:100%;height:auto;margin:0 auto}
.wide svg{max-width:680px}.narrow svg{max-width:430px}
.wide{display:none}
@container (min-width:560px){.wide{display:block}.narrow{display:none}}
button.theme{position:absolute;top:26px;right:28px;font:12px/1 var(--sans);color:var(--dim);background:var(--card);
border:1px solid var(--line);border-radius:14px;padding:7px 12px;cursor:pointer}
button.theme:hover,.switches label:hover{color:var(--text);border-color:var(--dim)}
.calls{position:relative}
.switch{position:absolute;opacity:0;width:1px;height:1px;margin:0}
.switches{position:absolute;top:13px;right:16px;margin:0;display:flex;gap:8px}
.switches label{font-size:12px;line-height:1;color:var(--dim);border:1px solid var(--line);border-radius:14px;
padding:6px 10px;cursor:pointer}
.all:checked~.switches label:first-child,.whereabouts:checked~.switches label:last-child{color:var(--badge-text);
background:var(--badge);border-color:var(--badge)}
.all:focus-visible~.switches label:first-child,.whereabouts:focus-visible~.switches label:last-child{
outline:2px solid var(--blue)}
.path{list-style:none;margin:0;padding:0}
.path>li{display:grid;grid-template-columns:64px 1fr;column-gap:28px;position:relative}
.path>li::before{content:"";position:absolute;left:77px;top:0;bottom:0;width:2px;background:var(--line)}
.path>li:first-child::before{top:14px}.path>li:last-child::before{bottom:auto;height:8px}
.step::after{content:"";position:absolute;left:73px;top:5px;width:10px;height:10px;background:var(--blue);
border-radius:50%}
.step.timer::after{background:var(--orange);border-radius:1px;transform:rotate(45deg)}
.step.packet::after{background:var(--green);border-radius:2px}
.time{font:12px/20px var(--mono);color:var(--dim);text-align:right;white-space:nowrap}
.what{margin-left:calc(var(--i,0)*var(--indent,16px));padding-bottom:3px;min-width:0}
.fn{font-size:13.5px;line-height:20px;overflow-wrap:anywhere}
.badge{font:11px/16px var(--mono);color:var(--badge-text);background:var(--badge);border-radius:9px;padding:1px 8px;
margin-left:8px;white-space:nowrap}
.file{float:right;font:11px/20px var(--mono);color:var(--dim);margin-left:12px}
.say{margin:0;color:var(--dim);font-size:13px;line-height:17px;overflow-wrap:anywhere}
.say .note::before{content:"· "}
.say .good,.say .port{color:var(--green)}.say .warn{color:var(--orange)}.say .bad{color:var(--red)}
.where{display:none;margin:2px 0 2px;font-size:12px;color:var(--dim);overflow-wrap:anywhere}
.where code{color:var(--text)}
.whereabouts:checked~.path .where{display:block}
.detail{display:none!important}.all:checked~.path .detail{display:grid!important}
.detail .fn{color:var(--dim)}
.look .what{display:flex;flex-wrap:wrap;align-items:baseline;column-gap:9px;padding:1px 0 4px;font-size:13px;
color:var(--dim)}
.look code{color:var(--text)}.look code.port{color:var(--green)}
.look .good{color:var(--green)}.look .warn{color:var(--orange)}.look .bad{color:var(--red)}
.mark{display:inline-block;flex:none;width:17px;height:17px;border-radius:4px;font:700 11px/17px var(--sans);
text-align:center;border:0 solid}
.mark.free,.mark.shared{background:var(--wash);box-shadow:inset 0 0 0 1px var(--grey);color:var(--text)}
.mark:empty::before{content:"\\200b"}
.entry{padding:7px 0 3px}
.path>.entry span{grid-column:2;font-size:12px;font-weight:600;color:var(--blue);margin-left:-3px}
.path>.entry.timer span{color:var(--orange)}.path>.entry.packet span{color:var(--green)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:6px 18px;margin:12px 0 6px;padding:0;font-size:12.5px}
.legend li{display:flex;gap:7px;align-items:center}
.hint{font-size:12.5px;margin:0}
.tuple{font:15px/1.5 var(--mono);overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:4px 14px;margin:0;font-size:13px}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.can{list-style:none;margin:0;padding:0;font-size:13px}
.can li{display:flex;gap:9px;align-items:flex-start;padding:2px 0}
.can li>span:last-child{min-width:0;overflow-wrap:anywhere}
.can .mark{margin-top:1px}
pre{margin:0;font:12.5px/1.5 var(--mono);white-space:pre-wrap;overflow-wrap:anywhere}
.demo{gap:34px}.demo>section{min-width:0}
.chapter h2{font-size:20px;margin:0 0 4px}.chapter p{color:var(--dim);max-width:900px;margin:0 0 14px}
.number{color:var(--blue);margin-right:12px}
.two{display:grid;grid-template-columns:minmax(0,1fr);gap:18px;align-items:start}
.more{margin-top:18px}
.maps{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:14px 20px}
.map{margin:0;max-width:240px;min-width:0}.map svg{display:block;width:100%;height:auto}
figcaption{display:flex;flex-wrap:wrap;gap:1px 10px;font-size:12px;margin-bottom:4px}
figcaption strong{flex-basis:100%}
.even{color:var(--blue)}.odd{color:var(--orange)}
.swatch{display:inline-block;flex:none;width:12px;height:12px;border-radius:2px;margin-right:7px;background:var(--text)}
.legend .swatch{margin-right:0}
.swatch.even{background:var(--blue)}.swatch.odd,.swatch.kernel{background:var(--orange)}
.swatch.ours{background:var(--green)}
.cost{border-collapse:collapse;width:100%;margin:12px 0 8px;font-size:13px;font-variant-numeric:tabular-nums}
.cost th,.cost td{text-align:right;padding:4px 0 4px 8px;font-weight:400;border-top:1px solid var(--line)}
.cost tr:first-child th{border:0;color:var(--dim);font-size:12px}.cost th:first-child{text-align:left;padding-left:0}
.label{color:var(--badge-text);background:var(--badge);border-radius:9px;padding:1px 8px;font-size:12px}
.decisions li{padding:5px 0}
footer{padding-top:4px;padding-bottom:26px;font-size:12px;color:var(--dim)}
footer code{overflow-wrap:anywhere}
svg text{font:12px var(--sans);fill:var(--text)}
svg .mono{font-family:var(--mono)}svg .small{font-size:11px}svg .strong{font-weight:700;font-size:13px}
svg text.dim{fill:var(--dim)}svg text.warn{fill:var(--orange)}svg text.bad{fill:var(--red)}
svg text.good{fill:var(--green)}svg text.port{fill:var(--green);font-weight:700}
.lifeline{stroke:var(--grey);stroke-width:3;opacity:.55}
.break{stroke:var(--grey);stroke-width:1.5;fill:none}
.arrow{stroke-width:2}.arrow.out{stroke:var(--blue)}.arrow.in{stroke:var(--green)}.arrow.again{stroke:var(--orange)}
.arrow.lost{stroke:var(--red);stroke-dasharray:6 4}
.head.out,.dot.out{fill:var(--blue)}.head.in,.dot.in{fill:var(--green)}.head.again,.dot.again{fill:var(--orange)}
.dot.lost{fill:var(--red)}
.cross{stroke:var(--red);stroke-width:2.5;fill:none;stroke-linecap:round}
svg text.out{fill:var(--blue)}svg text.in{fill:var(--green)}svg text.again{fill:var(--orange)}
svg text.lost{fill:var(--red)}
.timerbar{fill:var(--orange);opacity:.6}
.pill{fill:var(--card);stroke:var(--grey)}.pill.good{stroke:var(--green)}.pill.bad{stroke:var(--red)}
.cell{fill:var(--wash);stroke:var(--line)}.cell.free,.cell.shared{stroke:var(--line)}.cell.shared{stroke:var(--blue)}
.cell.looked{stroke:var(--text);stroke-width:1.5}
.cell.busy{opacity:.55}
.symbol{font-weight:700}svg .symbol{fill:var(--on)}svg .symbol.shared{fill:var(--text)}
svg .symbol.busy{fill:var(--text)}
.arc{fill:none;stroke:var(--text);stroke-width:1.3}.arc.jump{stroke-dasharray:4 3}
.arc.second{stroke:var(--dim)}.archead{fill:var(--text)}.archead.second{fill:var(--dim)}
.span{stroke:var(--line);stroke-width:9;stroke-linecap:round}
.syn{stroke:var(--card);stroke-width:1.5}.syn.now{fill:var(--blue)}.syn.before{fill:var(--orange)}
svg .strong-small{font-weight:700}
.plot,.ground{fill:var(--wash)}.grid{stroke:var(--line)}
.scatter{fill:none;stroke-width:2;stroke-linecap:round;opacity:.4}
.median{fill:none;stroke-width:2.5;stroke-linejoin:round}.median.under{stroke:var(--card);stroke-width:5;opacity:.8}
.scatter.kernel,.median.kernel{stroke:var(--orange)}.scatter.ours,.median.ours{stroke:var(--green)}
svg text.kernel{fill:var(--orange)}svg text.ours{fill:var(--green)}
svg .back{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.cliff{stroke:var(--red);stroke-dasharray:5 4}
.squares{fill:none;stroke-width:3;shape-rendering:crispEdges}
.ports-in{fill:none}
.ports-in.even{stroke:var(--blue)}.ports-in.odd{stroke:var(--orange)}.ports-in.joined,.ports-in.doubtful{stroke:var(--grey);
opacity:.45}
.ports-in.time_wait,.ports-in.tw_reusable{stroke:var(--violet)}.ports-in.tw_reusable{opacity:.6}
.ports-in.bound,.ports-in.listen,.ports-in.accepted,.ports-in.likely_bound{stroke:var(--red)}
.ports-in.reserved{stroke:var(--text)}
.allports figure{margin:0}.allports figure svg{display:block;width:100%;height:auto}
.kinds{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
.kinds th,.kinds td{text-align:right;padding:5px 0 5px 10px;font-weight:400;border-top:1px solid var(--line)}
.kinds tr:first-child th{border:0;color:var(--dim);font-size:12px}
.kinds td:first-child{padding-left:0;width:34px}.kinds td:nth-child(2){text-align:left;overflow-wrap:anywhere}
.kinds svg{display:block;width:34px;height:14px}
.squares.even{stroke:var(--blue)}.squares.odd{stroke:var(--orange)}.squares.new{stroke:var(--text)}
.node{fill:var(--card);stroke:var(--grey);stroke-width:1.5}.node.good{stroke:var(--green)}
.node.bad{stroke:var(--red);stroke-dasharray:5 3}
.track{fill:var(--wash);stroke:var(--line)}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.curve.established{stroke-width:6;opacity:.45}
.percentile{stroke-width:1.5}.percentile.p99{stroke-dasharray:5 4}
.reports{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
.reports th,.reports td{text-align:right;padding:5px 0 5px 10px;font-weight:400;border-top:1px solid var(--line)}
.reports tr:first-child th{border:0;color:var(--dim);font-size:12px}
.reports th:first-child{text-align:left;padding-left:0;overflow-wrap:anywhere}
.failure{margin:0 0 12px}.failure p{margin:0 0 2px;overflow-wrap:anywhere}
.way{stroke:var(--text);stroke-width:2}.wayhead,.start{fill:var(--text)}
"""
    + _DIAL
    + _PORTS
    + _DEPTHS
    + """
.cell.outside{opacity:0}
@media (max-width:760px){
header,main,footer{padding-left:14px;padding-right:14px}
h1{font-size:20px;padding-right:0}h1 .remark{font-size:15px;white-space:normal}
button.theme{position:static;float:right;margin:0 0 6px 10px}
.card{padding:13px 12px}
.calls>h2{margin-bottom:6px}.switches{position:static;margin-bottom:8px}
.path>li{grid-template-columns:52px 1fr;column-gap:24px;--indent:8px}
.look .what{display:block;overflow-wrap:anywhere}.look .what>:not(:last-child){margin-right:7px}
.path>li::before{left:63px}.step::after{left:59px}
.time{font-size:11px}.fn{font-size:13px}.file{display:none}
.tuple{font-size:14px}
}
@media print{
body{font-size:11pt}button,.switches{display:none}.card{break-inside:avoid}.calls{break-inside:auto}
.path>li{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
)

SCRIPT = """
(function(){var r=document.documentElement,b=document.querySelector('button.theme');if(!b)return;
function dark(){var t=r.dataset.theme;return t?t==='dark':matchMedia('(prefers-color-scheme: dark)').matches}
function say(){b.textContent=dark()?'☀ light':'☾ dark'}
b.hidden=false;say();b.addEventListener('click',function(){r.dataset.theme=dark()?'light':'dark';say()})})();
"""
