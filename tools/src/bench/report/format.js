"use strict";
// Numbers for people, and elements. Latencies come in microseconds.

const missing = "\u2013";
const digits = (value, places) => value.toLocaleString("en-US", {minimumFractionDigits: places, maximumFractionDigits: places});

// Three figures, and the unit they are in.
function inUnits(value, units) {
  let [size, unit] = units[0];
  for (const [least, name] of units) {
    if (Math.abs(value) >= least) [size, unit] = [least, name];
  }
  const scaled = value / size;
  const places = scaled === 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return [digits(scaled, places), unit];
}

const timeUnits = [[1, "\u00b5s"], [1e3, "ms"], [1e6, "s"]];
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const time = (us) => isNumber(us) ? inUnits(us, timeUnits).join(" ") : missing;
const count = (number) => isNumber(number) ? digits(number, 0) : missing;
const rate = (perSecond) => isNumber(perSecond) ? `${count(perSecond)} msg/s` : missing;
const rateName = (perSecond) => perSecond === null ? "as much as goes through" : `${perSecond.toLocaleString("en-US")} msg/s`;

// "180..210 \u00b5s": least and most of repeats; null where they can't be told apart.
function range(values, text) {
  const found = values.filter(isNumber);
  const [least, most] = [Math.min(...found), Math.max(...found)].map(text);
  if (found.length < 2 || least === most) return null;
  const unit = / \S+$/.exec(most)?.[0];
  return `${unit && least.endsWith(unit) ? least.slice(0, -unit.length) : least}..${most}`;
}

// On an axis: no more digits than the value has.
function timeOnAxis(us) {
  if (us === null || us === undefined) return "";
  const [size, unit] = us >= 1e6 ? [1e6, "s"] : us >= 1e3 ? [1e3, "ms"] : [1, "\u00b5s"];
  return `${+(us / size).toPrecision(3)} ${unit}`;
}
function rateOnAxis(perSecond) {
  if (perSecond === null || perSecond === undefined) return "";
  const [size, unit] = perSecond >= 1e6 ? [1e6, " M"] : perSecond >= 1e3 ? [1e3, " k"] : [1, ""];
  return `${+(perSecond / size).toPrecision(3)}${unit}`;
}

// Percentiles lie at -log10(1 - p), so that each nine takes the same width.
const nines = (percentile) => -Math.log10(Math.max(1 - percentile / 100, 1e-12));
function percentileName(at) {
  if (at <= 0) return "0%";
  if (at < 1) return `${+(100 * (1 - 10 ** -at)).toFixed(1)}%`;
  return `${+(100 * (1 - 10 ** -at)).toFixed(Math.max(0, Math.ceil(at) - 1))}%`;
}

// An element; children are elements or text, which is never read as markup.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "colour") made.style.setProperty("--colour", value);
    else if (key === "click") made.addEventListener("click", value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
const figure = (value, units) => {
  if (!isNumber(value)) return element("span", {class: "figure"}, missing);
  const [number, unit] = inUnits(value, units);
  return element("span", {class: "figure"}, number, element("span", {class: "unit"}, unit));
};
// The median, below it the least and the most.
function spread(values, text) {
  const between = range(values, text);
  return element("span", {class: "spread"}, text(median(values)), between === null ? null : element("small", {}, between));
}
const title = (key) => {
  const text = key.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
};
