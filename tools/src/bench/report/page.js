// Draws the page of the results in #data. One state, the chosen rate and time measure; whatever changes, all is drawn anew.
// <html data-state> says "drawn" or "error" when it is done, data-plots how many curves' plots there are.

const page = document.documentElement;
function failed(text) {
  page.dataset.state = "error";
  const box = document.getElementById("error");
  box.hidden = false;
  box.textContent += `This page could not be drawn in full: ${text}\n`;
}
window.onerror = (message, source, line) => failed(`${message} (line ${line})`);

const data = JSON.parse(document.getElementById("data").textContent);
// Other systems' drivers give up with two seconds' worth on its way; ours go on, and a message so late is what tells of it.
for (const run of data.runs) {
  if (run.acknowledged_lost === null && run.rate !== null && run.max_us >= 2e6) run.held = false;
}
const scaled = data.runs.filter((run) => run.curve !== null);
const steady = data.runs.filter((run) => run.curve === null && run.outages_ms.length === 0);
const failovers = data.runs.filter((run) => run.curve === null && run.outages_ms.length > 0);
const rank = (name) => name.startsWith("relay") ? 0 : name.startsWith("floor") ? 1 : 2;
const names = [...new Set(data.runs.map((run) => run.name))].sort((a, b) => rank(a) - rank(b));
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const palettes = {
  light: ["#1d5fd1", "#0e9384", "#d9480f", "#9333c9", "#b7860b", "#d6336c", "#4d7c0f", "#0b7fab", "#7a4a2b", "#5b5bd6", "#c2255c", "#2b8a3e"],
  dark: ["#6ea8ff", "#3ecfb8", "#ff8f5a", "#c792ff", "#e8bd4d", "#ff7eac", "#a3d65c", "#57c7ef", "#cfa07f", "#a5a5ff", "#ff6b9b", "#74d48c"],
};
const dashes = [[], [7, 4], [2, 3]];
const choice = {rate: null, measure: "p99"};
let plots = [];

// The colour is the name's on every plot; the floor is grey, since it is a measure and not a contender.
function look(name) {
  const floors = names.filter((other) => rank(other) === 1);
  const others = names.filter((other) => rank(other) !== 1);
  const palette = palettes[dark.matches ? "dark" : "light"];
  if (rank(name) === 1) return {colour: dark.matches ? "#8b98a7" : "#7b8794", dash: dashes[floors.indexOf(name) % 3]};
  const place = others.indexOf(name);
  return {colour: palette[place % palette.length], dash: dashes[Math.floor(place / palette.length) % 3]};
}
const style = (variable) => getComputedStyle(page).getPropertyValue(variable).trim();
const section = (id) => document.getElementById(id);
const part = (id, selector) => section(id).querySelector(selector);

function median(values) {
  const sorted = values.filter(isNumber).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
const medianOf = (runs, key) => median(runs.map((run) => run[key]));
const sumOf = (runs, key) => runs.some((run) => isNumber(run[key])) ? runs.reduce((sum, run) => sum + (run[key] || 0), 0) : null;

// The runs of one name at the chosen rate, and the one whose p99 is the middle one, whose curves are shown.
function chosen() {
  return names.map((name) => {
    const runs = steady.filter((run) => run.name === name && run.rate === choice.rate);
    const told = runs.filter((run) => isNumber(run.p99_us)).sort((a, b) => a.p99_us - b.p99_us);
    const ordered = told.length > 0 ? told : runs;
    return {name, runs, shown: ordered[(ordered.length - 1) >> 1]};
  }).filter((group) => group.runs.length > 0);
}

function rates() {
  const found = [...new Set(steady.map((run) => run.rate))];
  return found.sort((a, b) => (a === null) - (b === null) || a - b);
}

// The rate that most could hold; of several the highest.
function bestRate() {
  const holding = (rate) => new Set(steady.filter((run) => run.rate === rate && run.held).map((run) => run.name)).size;
  const given = rates().filter((rate) => rate !== null);
  return given.reduce((best, rate) => best === null || holding(rate) >= holding(best) ? rate : best, null);
}

// --- Plots.

// Lines at 1, 2 and 5 of each decade, or at decades alone where there are many.
function logSplits(min, max) {
  const splits = [];
  const steps = Math.log10(max / min) > 3.2 ? [1] : [1, 2, 5];
  for (let decade = Math.floor(Math.log10(min)); decade <= Math.ceil(Math.log10(max)); decade++) {
    splits.push(...steps.map((step) => step * 10 ** decade).filter((split) => split >= min && split <= max));
  }
  return splits;
}
const logScale = (extra) => ({distr: 3, log: 10, range: (u, min, max) => isNumber(min) && min > 0 ? [min / 1.3, max * 1.3] : [1, 10], ...extra});
const axis = (more) => ({
  stroke: style("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 20,
  grid: {stroke: style("--grid"), width: 1}, ticks: {stroke: style("--line"), width: 1, size: 5}, ...more,
});
const latencyAxis = () => axis({
  label: "latency, log scale", size: 66, splits: (u, i, min, max) => logSplits(min, max), filter: (u, splits) => splits,
  values: (u, splits) => splits.map(timeOnAxis),
});

// Of a point that another curve has and this one lacks, the nearest that it has; beyond its end none.
function nearest(u, series, index) {
  const values = u.data[series];
  const last = values.findLastIndex((value) => value !== null && value !== undefined);
  if (index > last) return index;
  for (let away = 0; away < values.length; away++) {
    for (const at of [index - away, index + away]) {
      if (values[at] !== null && values[at] !== undefined) return at;
    }
  }
  return index;
}

function plot(place, options, columns) {
  const size = () => ({width: place.clientWidth, height: Math.max(260, Math.min(400, place.clientWidth * 0.36))});
  const made = new uPlot({
    ...size(), cursor: {y: false, dataIdx: nearest, points: {size: 7}, focus: {prox: 24}}, focus: {alpha: columns.length > 3 ? 0.25 : 1}, padding: [12, 34, 0, 0], ...options,
    legend: {markers: {width: 3, fill: "transparent", dash: (u, series) => u.series[series].dash?.length > 0 ? "dashed" : "solid"}},
  }, columns, place);
  // In the next frame: a scrollbar that this brings would count as an error within the same one.
  const fit = () => {
    if (place.isConnected && made.width !== place.clientWidth && place.clientWidth > 0) made.setSize(size());
  };
  const watcher = new ResizeObserver(() => requestAnimationFrame(fit));
  watcher.observe(place);
  plots.push({destroy: () => { watcher.disconnect(); made.destroy(); }});
}

const line = (label, name, more) => {
  const {colour, dash} = look(name);
  return {label, stroke: colour, dash, width: 2, spanGaps: true, value: (u, value) => time(value), points: {show: false}, ...more};
};

// A curve of [nines, us], of the list or else of the few figures there are; the maximum lies where its message does.
function curve(run) {
  const few = [[50, run.p50_us], [90, run.p90_us], [99, run.p99_us], [99.9, run.p999_us], [99.99, run.p9999_us]];
  const listed = run.percentiles.length > 0 ? run.percentiles : few.filter(([, us]) => isNumber(us));
  const points = listed.filter(([percentile]) => percentile < 100).map(([percentile, us]) => [nines(percentile), us]);
  const last = points.length > 0 ? points.at(-1)[0] : 0;
  const messages = run.received || run.sent;
  points.push([Math.max(last, messages > 1 ? Math.log10(messages) : last + 0.3), run.max_us]);
  return points;
}

function drawPercentiles(all) {
  const groups = all.filter((group) => isNumber(group.shown.max_us));
  section("percentiles").hidden = groups.length === 0;
  if (groups.length === 0) return;
  const curves = groups.map((group) => curve(group.shown));
  const end = Math.max(5, Math.min(7, Math.ceil(Math.max(...curves.map((points) => points.at(-1)[0])))));
  const grid = Array.from({length: end * 80 + 1}, (_, index) => index / 80);
  const columns = curves.map((points) => {
    let at = 0;
    return grid.map((x) => {
      while (at < points.length && points[at][0] < x - 1e-9) at++;
      return at < points.length ? points[at][1] : null;
    });
  });
  const few = groups.filter((group) => group.shown.percentiles.length === 0).map((group) => group.name);
  const notes = ["Each nine takes the same width. A line ends where there is one message left, the slowest."];
  if (few.length > 0) notes.push(`Steps of the few percentiles there are: ${few.join(", ")}.`);
  part("percentiles", ".note").textContent = notes.join(" ");
  const marks = [0, nines(50), ...Array.from({length: end}, (_, index) => index + 1)];
  plot(part("percentiles", ".plot"), {
    scales: {x: {time: false, range: [0, end]}, y: logScale()},
    axes: [
      axis({label: "percentile of messages", size: 34, splits: () => marks, filter: (u, splits) => splits, values: (u, splits) => splits.map(percentileName)}),
      latencyAxis(),
    ],
    series: [{label: "percentile", value: (u, at) => at === null ? missing : percentileName(at)},
      ...groups.map((group) => line(group.name, group.name))],
  }, [grid, ...columns]);
}

// With several curves one measure is shown of each, the same on all plots.
function measureSwitch() {
  const button = (measure) => element("button", {
    type: "button", "aria-pressed": String(choice.measure === measure), click: () => { choice.measure = measure; draw(); },
  }, measure);
  return element("div", {class: "switch", role: "group", "aria-label": "Measure"}, ...["p50", "p99", "max"].map(button));
}

function drawOverTime(groups, untimed) {
  const single = groups.length === 1;
  const place = {p50: 1, p99: 2, max: 3};
  const note = part("over-time", ".note");
  note.textContent = "By the time a message was due, from its intended send to the subscriber. " +
    (single ? "" : "Of repeats, the one whose p99 is the middle one.") +
    (untimed.length > 0 ? ` Not recorded for ${untimed.map((group) => group.name).join(", ")}.` : "");
  let columns;
  let series;
  if (single) {
    const rows = groups[0].shown.over_time;
    const of = {p50: {width: 2}, p99: {width: 1.5, dash: [6, 3]}, max: {width: 0, paths: () => null, points: {show: true, size: 5, width: 1, fill: look(groups[0].name).colour}}};
    columns = [rows.map((row) => row[0]), ...Object.values(place).map((at) => rows.map((row) => row[at]))];
    series = Object.keys(place).map((measure) => line(measure, groups[0].name, of[measure]));
  } else {
    note.after(measureSwitch());
    columns = uPlot.join(groups.map((group) => {
      const rows = group.shown.over_time;
      return [rows.map((row) => row[0]), rows.map((row) => row[place[choice.measure]])];
    }));
    series = groups.map((group) => line(`${group.name} ${choice.measure}`, group.name, {width: 1.6}));
  }
  plot(part("over-time", ".plot"), {
    scales: {x: {time: false}, y: logScale()},
    axes: [axis({label: "seconds since the measured time began", size: 34}), latencyAxis()],
    series: [{label: "second", value: (u, at) => at === null ? missing : `${at} s`}, ...series],
  }, columns);
}

function drawRates() {
  const curves = names.map((name) => {
    const runs = steady.filter((run) => run.name === name && isNumber(run.achieved) && run.achieved > 0);
    const points = [...new Set(runs.map((run) => run.rate))].map((rate) => {
      const repeats = telling(runs.filter((run) => run.rate === rate));
      return {x: medianOf(repeats, "achieved"), p50: medianOf(repeats, "p50_us"), p99: medianOf(repeats, "p99_us"), max: medianOf(repeats, "max_us")};
    });
    return {name, points: points.sort((a, b) => a.x - b.x)};
  }).filter((curve) => curve.points.length > 0);
  const several = curves.some((curve) => curve.points.length > 1);
  section("rates").hidden = !several;
  if (!several) return;
  const few = curves.length <= 3;
  const measures = few ? ["p50", "p99"] : [choice.measure];
  part("rates", ".note").textContent = [`By the rate that arrived; of repeats, the median.${few ? " Line: p50; dashes: p99." : ""}`,
    ...data.knees.map((knee) => `Knee: ${knee}.`)].join(" ");
  if (!few) part("rates", ".note").after(measureSwitch());
  const tables = curves.flatMap((curve) => measures.map((measure) =>
    [curve.points.map((point) => point.x), curve.points.map((point) => point[measure])]));
  const dash = (measure) => few ? {dash: measure === "p99" ? [6, 4] : []} : {};
  const series = curves.flatMap((curve) => measures.map((measure) =>
    line(`${curve.name} ${measure}`, curve.name, {points: {show: true, size: 6}, ...dash(measure)})));
  plot(part("rates", ".plot"), {
    scales: {x: logScale({time: false}), y: logScale()},
    axes: [
      axis({label: "messages per second received, log scale", size: 34, splits: (u, i, min, max) => logSplits(min, max),
        filter: (u, splits) => splits, values: (u, splits) => splits.map(rateOnAxis)}),
      latencyAxis(),
    ],
    series: [{label: "received", value: (u, at) => at === null ? missing : rate(at)}, ...series],
  }, uPlot.join(joinable(tables)));
}

// Two points of one curve at the same rate can't be joined; the later goes.
const joinable = (tables) => tables.map(([xs, ys]) => {
  const kept = xs.map((x, at) => at).filter((at) => at === 0 || xs[at] > xs[at - 1]);
  return [kept.map((at) => xs[at]), kept.map((at) => ys[at])];
});
