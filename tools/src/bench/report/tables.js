// What of the page is no curve: figures, bars, tables and facts.

const CARDS_MAX = 5;

function drawPicker() {
  const all = rates();
  const picker = section("picker");
  picker.hidden = all.length < 2;
  const button = (each) => element("button", {
    type: "button", "aria-pressed": String(each === choice.rate), click: () => { choice.rate = each; draw(); },
  }, rateName(each));
  picker.replaceChildren(element("span", {}, "Offered"), ...all.map(button));
}

// Many are compared at a glance by bars, a few by figures.
// What a rate costs is told by the runs that held it; where none did, by all.
function telling(runs) {
  const held = runs.filter((run) => run.held);
  return held.length > 0 ? held : runs;
}

function drawComparison(groups) {
  const scale = scaleOf(groups.flatMap(({runs}) => [medianOf(telling(runs), "p50_us"), medianOf(telling(runs), "p99_us")]));
  const repeats = Math.max(...groups.map(({runs}) => runs.length));
  const rows = groups.map(({name, runs}) => {
    const held = runs.filter((run) => run.held);
    const shown = telling(runs);
    const [p50, p99] = [medianOf(shown, "p50_us"), medianOf(shown, "p99_us")];
    // Other systems' drivers give up on a rate that is not held: what had not come by then was not lost.
    const drained = runs.filter((run) => run.held || run.acknowledged_lost === null);
    const sums = {lost: sumOf(drained, "lost"), duplicated: sumOf(runs, "duplicated")};
    const faults = Object.entries(sums).filter(([, sum]) => sum > 0).map(([key, sum]) => `${key} ${count(sum)}`);
    if (held.length === 0) faults.push(`not held: ${rate(medianOf(runs, "achieved"))}`);
    else if (held.length < runs.length) faults.push(`held in ${held.length} of ${runs.length} runs`);
    if (runs.length < repeats) faults.push(`${runs.length} of ${repeats} runs are there`);
    const words = element("span", {}, element("b", {}, name), element("small", {}, runs[0].holds ?? ""));
    const between = ["p50", "p99"].map((key) => [key, range(shown.map((run) => run[`${key}_us`]), time)]).filter(([, text]) => text !== null);
    const made = bar(scale, words, false, [p50, p99, null], [element("b", {}, time(p50)), " \u00b7 p99 ", element("b", {}, time(p99)),
      between.length > 0 ? element("small", {}, between.map((each) => each.join(" ")).join(" \u00b7 ")) : null,
      faults.length > 0 ? element("small", {class: "bad"}, faults.join(", ")) : null].filter((child) => child !== null));
    made.style.setProperty("--colour", look(name).colour);
    return made;
  });
  section("headline").className = "compared";
  section("headline").replaceChildren(element("h2", {}, `Publish to subscriber at ${rateName(choice.rate)}`),
    element("p", {class: "note"}, `Under each name: where a message is when it is acknowledged. Dark up to p50, light up to p99; log scale` +
      `${repeats > 1 ? `; medians of ${repeats} runs, below them least..most` : ""}.`),
    element("div", {class: "bars"}, ...rows, scaleLine(scale, timeOnAxis)));
}

function drawHeadline(groups) {
  if (groups.length > CARDS_MAX) {
    drawComparison(groups);
    return;
  }
  const single = groups.length === 1;
  section("headline").className = single ? "single" : "";
  section("headline").replaceChildren(...groups.map(({name, runs}) => {
    const bad = (key) => {
      const sum = sumOf(runs, key);
      return element("dd", {class: sum > 0 ? "bad" : null}, count(sum));
    };
    const between = (key, text) => range(telling(runs).map((run) => run[key]), text);
    const big = (key, label) => element("div", {}, figure(medianOf(telling(runs), key), timeUnits), element("span", {class: "label"}, label),
      runs.length > 1 ? element("span", {class: "label spread"}, between(key, time) ?? "") : null);
    const achieved = medianOf(runs, "achieved");
    const held = runs.every((run) => run.held);
    const pair = (label, value) => element("div", {}, element("dt", {}, label), value.nodeType ? value : element("dd", {}, value));
    const more = single ? ["p90_us", "p999_us", "p9999_us", "max_us"] : [];
    const labels = {p90_us: "p90", p999_us: "p99.9", p9999_us: "p99.99", max_us: "slowest"};
    return element("article", {class: "card", colour: look(name).colour},
      element("h3", {}, name),
      element("p", {class: "holds"}, holding(runs[0])),
      element("div", {class: "main"}, big("p50_us", "p50"), ...more.slice(0, 1).map((key) => big(key, labels[key])), big("p99_us", "p99"),
        ...more.slice(1).map((key) => big(key, labels[key]))),
      element("dl", {},
        ...(single ? [] : ["p999_us", "max_us"].map((key) => pair(labels[key], element("dd", {}, spread(runs.map((run) => run[key]), time))))),
        pair("received", element("dd", {class: held ? null : "bad"}, rate(achieved) + (held ? "" : ", rate not held"),
          between("achieved", rate) === null || choice.rate !== null ? null : element("small", {}, between("achieved", rate)))),
        ...(single ? [pair("messages", count(sumOf(runs, "received"))), pair("acknowledged, p50", time(medianOf(runs, "ack_p50_us"))),
          pair("acknowledged, p99", time(medianOf(runs, "ack_p99_us")))] : []),
        pair("lost", bad("lost")), pair("duplicated", bad("duplicated")),
        runs.length > 1 ? pair("median, least..most of", `${runs.length} runs`) : null));
  }));
}

function holding(run) {
  if (run.holds === null) return "";
  const copies = run.copies === null ? "" : ` (copies: ${run.copies})`;
  return `Acknowledged when in: ${run.holds}${copies}`;
}

// --- Bars on one logarithmic scale.

function scaleOf(values) {
  const found = values.filter((value) => isNumber(value) && value > 0);
  const low = Math.log10(Math.min(...found)) - 0.3;
  const high = Math.log10(Math.max(...found)) + 0.05;
  return {at: (value) => 100 * Math.max(0, (Math.log10(Math.max(value, 1e-9)) - low) / (high - low)), low: 10 ** low, high: 10 ** high};
}

function bar(scale, name, plain, [p50, p99, max], values) {
  const until = (kind, value) => isNumber(value) ? element("i", {class: kind, style: `width:${scale.at(value).toFixed(2)}%`}) : null;
  const tick = isNumber(max) ? element("i", {class: "tick", style: `left:calc(${scale.at(max).toFixed(2)}% - 2px)`}) : null;
  return element("div", {class: "bar"}, element("div", {class: plain ? "name plain" : "name"}, name),
    element("div", {class: "track"}, until("p99", p99), until("p50", p50), tick), element("div", {class: "values"}, ...values));
}

function scaleLine(scale, text) {
  const marks = logSplits(scale.low, scale.high).filter((mark) => scale.at(mark) < 98);
  const decades = marks.filter((mark) => Math.abs(Math.log10(mark) - Math.round(Math.log10(mark))) < 1e-6);
  const shown = decades.length >= 2 ? decades : marks;
  return element("div", {class: "bar"}, element("div", {}),
    element("div", {class: "scale"}, ...shown.map((mark) => element("span", {style: `left:${scale.at(mark).toFixed(2)}%`}, text(mark)))), element("div", {}));
}

// As a message passes them; what is not known comes first.
const stages = ["received", "sequenced", "durable", "written", "held", "released"];

function drawHops(groups) {
  const having = groups.filter((group) => Object.keys(group.shown.hops).length > 0);
  section("hops").hidden = having.length === 0;
  if (having.length === 0) return;
  part("hops", ".note").textContent = "Dark up to p50, light up to p99, the mark at the slowest; log scale. Hops overlap, and their " +
    "percentiles don't add up to those of the whole. The relay's are the upper bounds of its counters' buckets.";
  const stage = ([name]) => stages.indexOf(name.split("_to_")[0]);
  const ordered = (hops) => Object.entries(hops).sort((a, b) => stage(a) - stage(b));
  const rows = (run) => [["publish to subscriber", run, false], ...ordered(run.hops).map(([name, hop]) => [name.replaceAll("_", " "), hop, true])];
  const all = having.flatMap((group) => rows(group.shown).flatMap(([, hop]) => [hop.p50_us, hop.p99_us, hop.max_us]));
  const scale = scaleOf(all);
  const values = (hop) => [element("b", {}, time(hop.p50_us)), ` \u00b7 p99 ${time(hop.p99_us)} \u00b7 max ${time(hop.max_us)}`];
  part("hops", ".bars").replaceChildren(...having.map((group) => element("div", {colour: look(group.name).colour},
    element("div", {class: "group"}, element("span", {class: "swatch"}), group.name),
    ...rows(group.shown).map(([name, hop, plain]) => bar(scale, name, plain, [hop.p50_us, hop.p99_us, hop.max_us], values(hop))))),
  scaleLine(scale, timeOnAxis));
}

const outageNames = {failover: "Without delivery at a subscriber when the leader is lost", restart: "From the start of a killed node until a client is served"};

function drawOutages() {
  section("outages").hidden = failovers.length === 0;
  if (failovers.length === 0) return;
  part("outages", ".note").textContent = "Dark up to the median, light up to the longest, the mark at the shortest; log scale.";
  const scale = scaleOf(failovers.flatMap((run) => run.outages_ms));
  const kinds = [...new Set(failovers.map((run) => run.what))];
  part("outages", ".bars").replaceChildren(...kinds.flatMap((what) => {
    const of = failovers.filter((run) => run.what === what);
    return [element("div", {class: "group"}, outageNames[what] ?? title(what)), ...names.flatMap((name) => outagesOf(scale, name, of.filter((run) => run.name === name)))];
  }), scaleLine(scale, (ms) => timeOnAxis(ms * 1e3)));
}

// A bar for each way in which it was lost.
function outagesOf(scale, name, failed) {
  const ways = [...new Set(failed.map((run) => run.settings.how))];
  return ways.map((how) => {
    const runs = failed.filter((run) => run.settings.how === how);
    const all = runs.flatMap((run) => run.outages_ms);
    const stuck = runs.filter((run) => run.settings.recovered === false).length;
    const kept = sumOf(runs, "acknowledged_lost") ?? sumOf(runs, "lost");
    const again = runs.reduce((sum, run) => sum + (run.settings.strikes_repeated ?? 0), 0);
    const faults = stuck > 0 ? [`not recovered in ${stuck} of ${runs.length} runs`] : [];
    if (kept > 0) faults.push(`acknowledged and lost: ${count(kept)}`);
    const isBack = stuck < runs.length;
    const between = range(all, (ms) => time(ms * 1e3));
    const words = [stuck > 0 ? "at least " : "", element("b", {}, time(median(all) * 1e3)), all.length < 2 ? "" : ` \u00b7 ${between ?? "each"} of ${all.length}`];
    if (again > 0) words.push(element("small", {}, `leader struck again, unmeasured: ${count(again)}`));
    if (faults.length > 0) words.push(element("small", {class: "bad"}, faults.join(", ")));
    const label = element("span", {}, ways.length > 1 ? `${name}, ${how}` : name, runs[0].holds === null ? null : element("small", {}, runs[0].holds));
    const made = bar(scale, label, false, isBack ? [median(all), stuck > 0 ? scale.high : Math.max(...all), all.length > 1 ? Math.min(...all) : null] : [scale.high, null, null], words);
    made.style.setProperty("--colour", isBack ? look(name).colour : "var(--bad)");
    return made;
  });
}

// --- Tables.

function drawRuns() {
  section("runs").hidden = steady.length === 0;
  const latency = (key) => (run) => time(run[key]);
  const fault = (key) => (run) => element("span", {class: run[key] > 0 ? "bad" : null}, count(run[key]));
  const columns = [
    ["measured", (run) => element("span", {}, element("span", {class: "swatch", colour: look(run.name).colour}), ` ${run.name}`), "name"],
    ["acknowledged when in", (run) => run.holds ?? missing, "text"],
    ["copies", (run) => run.copies ?? missing],
    ["run", (run) => run.run ?? missing],
    ["offered, msg/s", (run) => run.rate === null ? "max" : count(run.rate)],
    ["received, msg/s", (run) => run.held ? count(run.achieved) : element("span", {class: "bad"}, count(run.achieved), element("br"), "not held")],
    ["p50", latency("p50_us")], ["p90", latency("p90_us")], ["p99", latency("p99_us")], ["p99.9", latency("p999_us")],
    ["p99.99", latency("p9999_us")], ["slowest", latency("max_us")], ["lost", fault("lost")], ["duplicated", fault("duplicated")],
  ].filter(([, of]) => steady.some((run) => of(run) !== missing));
  const ordered = [...steady].sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name) || (a.rate ?? Infinity) - (b.rate ?? Infinity) || 0);
  const head = element("tr", {}, ...columns.map(([name, , kind]) => element("th", {class: kind, scope: "col"}, name)));
  const isFirst = (at) => at === 0 || ordered[at].name !== ordered[at - 1].name;
  const rows = ordered.map((run, at) => element("tr", {class: run.rate === choice.rate && rates().length > 1 ? "chosen" : null},
    ...columns.map(([, of, kind]) => element("td", {class: kind}, kind === "text" && !isFirst(at) ? "" : of(run)))));
  part("runs", ".wide").replaceChildren(element("table", {class: "results"}, element("thead", {}, head), element("tbody", {}, ...rows)));
  part("runs", ".note").textContent = "Latency from the intended send to the subscriber. A rate is held where 95% of it arrives, and nothing is two seconds behind." +
    (steady.some((run) => !run.held && run.lost > 0) ? " Where it was not held, lost is what had not come when the run was given up." : "");
}

// One line for each name and rate that was measured more than once.
function drawRepeats() {
  const keys = [...new Set(steady.map((run) => JSON.stringify([run.name, run.rate])))];
  const groups = keys.map((key) => steady.filter((run) => key === JSON.stringify([run.name, run.rate]))).filter((runs) => runs.length > 1);
  groups.sort(([a], [b]) => names.indexOf(a.name) - names.indexOf(b.name) || (a.rate ?? Infinity) - (b.rate ?? Infinity) || 0);
  section("repeats").hidden = groups.length === 0;
  const values = (key, text) => (runs) => runs.some((run) => isNumber(run[key])) ? spread(telling(runs).map((run) => run[key]), text) : missing;
  const fault = (key) => (runs) => element("span", {class: sumOf(runs, key) > 0 ? "bad" : null}, count(sumOf(runs, key)));
  const columns = [
    ["measured", ([run]) => element("span", {}, element("span", {class: "swatch", colour: look(run.name).colour}), ` ${run.name}`), "name"],
    ["acknowledged when in", ([run]) => run.holds ?? missing, "text"],
    ["copies", ([run]) => run.copies ?? missing],
    ["offered, msg/s", ([run]) => run.rate === null ? "max" : count(run.rate)],
    ["runs", (runs) => count(runs.length)],
    ["held in", (runs) => element("span", {class: runs.every((run) => run.held) ? null : "bad"}, count(runs.filter((run) => run.held).length))],
    ["received, msg/s", values("achieved", count)],
    ["p50", values("p50_us", time)], ["p90", values("p90_us", time)], ["p99", values("p99_us", time)], ["p99.9", values("p999_us", time)],
    ["p99.99", values("p9999_us", time)], ["slowest", values("max_us", time)], ["lost", fault("lost")], ["duplicated", fault("duplicated")],
  ].filter(([, of]) => groups.some((runs) => of(runs) !== missing));
  const head = element("tr", {}, ...columns.map(([name, , kind]) => element("th", {class: kind, scope: "col"}, name)));
  const rows = groups.map((runs) => element("tr", {class: runs[0].rate === choice.rate && rates().length > 1 ? "chosen" : null},
    ...columns.map(([, of, kind]) => element("td", {class: kind}, of(runs)))));
  part("repeats", ".wide").replaceChildren(element("table", {class: "results"}, element("thead", {}, head), element("tbody", {}, ...rows)));
  part("repeats", ".note").textContent = "Of the repeats of one name and rate: the median, below it the least and the most. What was lost and duplicated is that of all.";
}

const factNames = {cpu: "CPU", cpus: "CPUs", client_cpu: "Client's CPU", server_cpus: "Servers' CPUs", io_scheduler: "I/O scheduler",
  write_cache: "Device's write cache", isolation: "CPU isolation", size: "Message size, bytes", lateness_p99_us: "Generator late, p99",
  interrupt_cpus: "CPUs of the disk's interrupts", hiccups: "Generator stood still, times", hiccups_ms: "Generator stood still, ms in all",
  hiccup_longest_ms: "Generator stood still, ms at most"};
const list = (entries) => element("dl", {}, ...entries.map(([name, value]) =>
  element("div", {class: String(value).includes("\n") || String(value).length > 160 ? "long" : null}, element("dt", {}, name),
    element("dd", {}, typeof value === "number" ? value.toLocaleString("en-US") : String(value)))));
const facts = (entries) => list(entries.map(([key, value]) => [factNames[key] ?? title(key), value]));

// The entries that all objects have alike.
function shared(objects) {
  const [first, ...others] = objects;
  return Object.entries(first || {}).filter(([key, value]) => others.every((other) => other[key] === value));
}

const machineOrder = ["cpu", "cpus", "memory", "virtualisation", "kernel", "isolation", "kernel_parameters", "governor", "clock_source", "disk", "filesystem",
  "mount_options", "write_cache", "io_scheduler", "interrupt_cpus"];
const ofRun = ["command", "measured_at", "version"];

function drawMachine() {
  const place = (key) => machineOrder.includes(key) ? machineOrder.indexOf(key) : machineOrder.length;
  const machines = new Map();
  for (const run of data.runs) {
    const entries = Object.entries(run.machine).filter(([key]) => !ofRun.includes(key));
    entries.sort((a, b) => place(a[0]) - place(b[0]));
    if (entries.length > 0) machines.set(JSON.stringify(entries), [...(machines.get(JSON.stringify(entries)) || []), run.name]);
  }
  const versions = versionsOf();
  section("machine").hidden = machines.size === 0 && versions.length === 0;
  part("machine", ".facts").replaceChildren(...[...machines].flatMap(([entries, of]) => [
    machines.size > 1 ? element("h3", {}, [...new Set(of)].join(", ")) : null, facts(JSON.parse(entries)),
  ]).filter((child) => child !== null), ...(versions.length > 0 ? [element("h3", {}, "Versions"), list(versions)] : []));
}

// What was measured, by the names that have it.
function versionsOf() {
  const found = new Map();
  for (const {name, settings, machine} of data.runs) {
    const parts = settings.versions ? [settings.versions, settings.runtime && `driver on ${settings.runtime}`] : [machine.version && `relay ${machine.version}`];
    const text = parts.filter((part) => part).join("; ");
    if (text !== "") found.set(text, [...(found.get(text) || []), name]);
  }
  return [...found].map(([text, of]) => [[...new Set(of)].join(", "), text]);
}

// What all results have alike, then what all of a name have, then each one's own.
function drawSettings() {
  const alike = data.runs.length > 1 ? shared(data.runs.map((run) => run.settings)) : [];
  const keys = new Set(alike.map(([key]) => key));
  const groups = names.map((name) => {
    const runs = data.runs.filter((run) => run.name === name);
    const own = runs.length > 1 ? shared(runs.map((run) => run.settings)).filter(([key]) => !keys.has(key)) : [];
    const known = new Set([...keys, ...own.map(([key]) => key), "command"]);
    const each = runs.map((run) => settingsOf(run, known, data.runs.length === 1));
    return runs.length === 1 ? each[0] : element("details", {}, element("summary", {}, `${name}: ${runs.length} results`), facts(own), ...each);
  });
  part("settings", ".facts").replaceChildren(facts(alike), ...groups);
}

function settingsOf(run, known, isOpen) {
  const rest = Object.entries(run.settings).filter(([key]) => !known.has(key));
  const about = ofRun.slice(1).filter((key) => key in run.machine).map((key) => [key, run.machine[key]]);
  const late = isNumber(run.lateness_p99_us) ? [["lateness_p99_us", time(run.lateness_p99_us)]] : [];
  const offered = run.curve !== null ? `${run.curve} ${run.x.toLocaleString("en-US")}` : run.outages_ms.length > 0 ? run.what : rateName(run.rate);
  const command = run.machine.command ? `relay ${run.machine.command}` : run.settings.command;
  return element("details", {open: isOpen ? "" : null},
    element("summary", {}, `${run.name}, ${offered}${run.run === null ? "" : `, run ${run.run}`}`),
    command ? element("code", {}, command) : null, facts([...rest, ...late, ...about]));
}

// --- All of it.

function draw() {
  plots.forEach((plot) => plot.destroy());
  plots = [];
  document.querySelectorAll(".switch").forEach((old) => old.remove());
  const groups = chosen();
  const timed = groups.filter((group) => group.shown.over_time.length > 1);
  section("headline").hidden = groups.length === 0;
  section("over-time").hidden = timed.length === 0;
  drawPicker();
  drawHeadline(groups);
  drawPercentiles(groups);
  if (timed.length > 0) drawOverTime(timed, groups.filter((group) => !timed.includes(group)));
  drawHops(groups);
  drawRates();
  drawScale();
  drawOutages();
  drawRepeats();
  drawRuns();
  drawMachine();
  drawSettings();
  page.dataset.plots = String(plots.length);
  if (page.dataset.state !== "error") page.dataset.state = "drawn";
}

function begin() {
  document.title = data.title;
  section("title").textContent = data.title;
  const times = data.runs.map((run) => run.machine.measured_at).filter((at) => at).sort();
  const span = times.length > 0 ? `measured ${times[0]}${times.at(-1) !== times[0] ? ` to ${times.at(-1)}` : ""}` : null;
  const cpus = [...new Set(data.runs.map((run) => run.machine.cpu).filter((cpu) => cpu))];
  section("subtitle").textContent = [`${data.runs.length} result${data.runs.length === 1 ? "" : "s"}`, span, ...cpus.slice(0, 2)]
    .filter((text) => text).join(" \u00b7 ");
  section("footer").textContent = `Made by relay ${data.version}. Open loop: latency counts from the time a message was meant to be sent, ` +
    "whenever it really was. Curves by uPlot.";
  choice.rate = bestRate();
  draw();
  dark.addEventListener("change", draw);
}
begin();
