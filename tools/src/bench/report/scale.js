// Scale curves: what a figure is against how many of something there are, and how it grows.

const bytes = (value) => isNumber(value) ? inUnits(value, [[2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"]]).join(" ") : missing;
const percent = (share) => isNumber(share) ? `${digits(share * 100, 1)}%` : missing;
// Title, the figure of a run, and its text; times that are told apart best on the plot are drawn there.
const scaleFigures = [
  {title: "p50", of: (run) => run.p50_us, text: time, drawn: true},
  {title: "p99", of: (run) => run.p99_us, text: time, drawn: true},
  {title: "ack p50", of: (run) => run.ack_p50_us, text: time},
  {title: "ack p99", of: (run) => run.ack_p99_us, text: time},
  {title: "worst stream's p99", of: (run) => run.settings.streams > 1 ? run.settings.stream_p99_us_max : null, text: time},
  {title: "restart", of: (run) => run.outages_ms.length > 0 ? median(run.outages_ms) * 1e3 : null, text: time, drawn: true},
  {title: "seek", of: (run) => isNumber(run.settings.seek_ms) ? run.settings.seek_ms * 1e3 : null, text: time, drawn: true},
  {title: "append, p50", of: (run) => run.hops.append?.p50_us, text: time, drawn: true},
  {title: "append, p99", of: (run) => run.hops.append?.p99_us, text: time},
  {title: "deliveries/s", of: (run) => run.settings.deliveries_per_s, text: count},
  {title: "CPU per message", of: (run) => run.settings.cpu_us_per_message, text: time, drawn: true},
  {title: "CPU, of one", of: (run) => run.settings.cpu_share, text: percent},
  {title: "memory, most", of: (run) => run.settings.resident_peak, text: bytes},
];

// The exponent: the slope of log y over log x by least squares; null with fewer than two points above 0.
function growth(points) {
  const logs = points.filter(([x, y]) => x > 0 && y > 0).map(([x, y]) => [Math.log(x), Math.log(y)]);
  if (new Set(logs.map(([x]) => x)).size < 2) return null;
  const mean = (place) => logs.reduce((sum, log) => sum + log[place], 0) / logs.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  return logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
}
const exponent = (value) => value === null ? missing : digits(value, 2).replace("-0.00", "0.00");

// Each curve of each name, with its points by number and the figures it has.
function scaleCurves() {
  const keys = [...new Set(scaled.map((run) => JSON.stringify([run.curve, run.name])))];
  return keys.map((key) => {
    const [curve, name] = JSON.parse(key);
    const runs = scaled.filter((run) => run.curve === curve && run.name === name);
    const xs = [...new Set(runs.map((run) => run.x))].sort((a, b) => a - b);
    const points = xs.map((x) => ({x, runs: runs.filter((run) => run.x === x)}));
    const figures = scaleFigures.filter(({of}) => runs.some((run) => isNumber(of(run)))).map((each) => ({
      ...each, growth: growth(points.map((point) => [point.x, median(point.runs.map(each.of))])),
    }));
    return {curve, name, points, figures};
  });
}

function scaleTable({curve, points, figures}) {
  const repeated = points.some(({runs}) => runs.length > 1);
  const head = [curve, ...(repeated ? ["runs"] : []), ...figures.map(({title}) => title)];
  const rows = points.map(({x, runs}) => element("tr", {}, element("th", {scope: "row"}, x.toLocaleString("en-US")),
    repeated ? element("td", {}, count(runs.length)) : null,
    ...figures.map(({of, text}) => element("td", {}, spread(runs.map(of), text)))));
  const grown = element("tr", {class: "growth"}, element("th", {scope: "row"}, "growth"), repeated ? element("td", {}, "") : null,
    ...figures.map((figure) => element("td", {}, exponent(figure.growth))));
  return element("div", {class: "wide"}, element("table", {class: "results"},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {scope: "col"}, text)))), element("tbody", {}, ...rows, grown)));
}

function scalePlot(place, {curve, points, figures}) {
  const drawn = figures.filter((figure) => figure.drawn);
  const xs = points.map(({x}) => x);
  const palette = palettes[dark.matches ? "dark" : "light"];
  // Where there are none of something there is no logarithm, and few steps need none.
  const isLog = xs[0] > 0 && xs.at(-1) / xs[0] >= 4;
  const onAxis = (u, splits) => splits.map((x) => x === null ? "" : rateOnAxis(x));
  const at = isLog
    ? {scale: logScale({time: false}), axis: {splits: (u, i, min, max) => logSplits(min, max), filter: (u, splits) => splits, values: onAxis}}
    : {scale: {time: false, range: (u, min, max) => [min - (max - min) / 20, max + (max - min) / 20]}, axis: {incrs: [1, 2, 5, 10, 20, 50, 100], values: onAxis}};
  const times = {...latencyAxis(), label: "time, log scale"};
  plot(place, {
    scales: {x: at.scale, y: logScale()},
    axes: [axis({label: isLog ? `${curve}, log scale` : curve, size: 34, ...at.axis}), times],
    series: [{label: curve, value: (u, x) => x === null ? missing : x.toLocaleString("en-US")},
      ...drawn.map((figure, index) => ({label: figure.growth === null ? figure.title : `${figure.title} (growth ${exponent(figure.growth)})`,
        stroke: palette[index], width: 2, spanGaps: true, value: (u, value) => time(value), points: {show: true, size: 6}}))],
  }, [xs, ...drawn.map(({of}) => points.map(({runs}) => median(runs.map(of))))]);
}

function drawScale() {
  section("scale").hidden = scaled.length === 0;
  if (scaled.length === 0) return;
  part("scale", ".note").textContent = "Growth is the exponent of a figure against the number, fitted over all points: 0, it stays the same; 1, it grows in proportion. " +
    "Of repeats, the median; below it the least and the most. CPU and memory are the relay's alone.";
  const curves = scaleCurves();
  const places = curves.map(() => element("div", {class: "plot"}));
  part("scale", ".curves").replaceChildren(...curves.map((each, index) => element("div", {class: "curve", "data-curve": each.curve},
    element("h3", {}, title(each.curve), element("small", {}, each.name)), places[index], scaleTable(each))));
  // Once they have a width.
  curves.forEach((each, index) => {
    if (each.points.length > 1) scalePlot(places[index], each);
    else places[index].remove();
  });
}
