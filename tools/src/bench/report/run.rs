//! One result as the page takes it.
//!
//! Results come from our own benches and from other systems' drivers, so keys may be missing or have a second name; what is
//! of the wrong kind is refused rather than drawn as nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Most points of a curve.
const POINTS_MAX: usize = 100_000;
/// Hops of the floor, and the lone messages after a restart, which stand beside the other keys.
const MORE_HOPS: [&str; 4] = [
    "received_to_written",
    "received_to_held",
    "written_to_sent",
    "append",
];

/// See the keys in the module above. Latencies in microseconds, outages in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    name: String,
    what: String,
    #[serde(flatten)]
    texts: BTreeMap<&'static str, Option<String>>,
    /// None for as many as go through.
    rate: Option<f64>,
    achieved: Option<f64>,
    held: bool,
    #[serde(flatten)]
    numbers: BTreeMap<&'static str, Option<f64>>,
    percentiles: Vec<Vec<f64>>,
    over_time: Vec<Vec<f64>>,
    hops: BTreeMap<String, Hop>,
    outages_ms: Vec<f64>,
    /// The scale curve that this is a point of, and where on it.
    curve: Option<String>,
    x: Option<f64>,
    /// What else was said, by name.
    settings: BTreeMap<String, Value>,
    machine: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize)]
struct Hop {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Run {
    /// The result in a JSON object, or what is wrong with it.
    pub(super) fn of(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("it is no object")?;
        let mut keys = Keys(object.clone());
        let own = keys.text("name")?;
        let name = keys.text("variant")?.or(own);
        let name = name.ok_or("it has neither `name` nor `variant`")?;
        let outages_ms = keys.outages()?;
        let is_failover = !outages_ms.is_empty();
        let what = keys.text("what")?.unwrap_or_else(|| {
            let what = if is_failover { "failover" } else { "latency" };
            what.into()
        });
        let (curve, x) = (keys.text("curve")?, keys.number("x")?);
        if curve.is_some() != x.is_some() {
            return Err("`curve` and `x` belong together, the name and the number".into());
        }
        let rate = keys.rate()?;
        let achieved = keys.either("achieved", "msgs_per_s")?;
        let held = match keys.0.remove("held") {
            Some(Value::Bool(held)) => held,
            _ => rate
                .zip(achieved)
                .is_none_or(|(rate, achieved)| achieved >= 0.95 * rate),
        };
        let numbers = keys.numbers(is_failover)?;
        Ok(Self {
            texts: [
                ("holds", keys.text("holds")?),
                ("copies", keys.text("copies")?),
                ("run", keys.text("run")?),
            ]
            .into(),
            percentiles: keys.points("percentiles", 2)?,
            over_time: keys.points("over_time", 4)?,
            hops: keys.hops()?,
            machine: keys.nested("machine"),
            settings: keys.settings(),
            name,
            what,
            rate,
            achieved,
            held,
            numbers,
            outages_ms,
            curve,
            x,
        })
    }
}

/// What of the object was not yet taken.
struct Keys(Map<String, Value>);

impl Keys {
    fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("`{key}` is no number")),
            },
        }
    }

    fn needed(&mut self, key: &str) -> Result<f64, String> {
        self.number(key)?
            .ok_or_else(|| format!("it has no `{key}`"))
    }

    /// Both are taken, the first counts.
    fn either(&mut self, first: &str, second: &str) -> Result<Option<f64>, String> {
        let second = self.number(second)?;
        Ok(self.number(first)?.or(second))
    }

    /// A text, or a number as one.
    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(format!("`{key}` is no text")),
        }
    }

    fn rate(&mut self) -> Result<Option<f64>, String> {
        for key in ["rate", "offered_rate"] {
            if self.0.get(key).is_some_and(|rate| rate == "max") {
                self.0.remove(key);
            }
        }
        self.either("rate", "offered_rate")
    }

    fn numbers(
        &mut self,
        is_failover: bool,
    ) -> Result<BTreeMap<&'static str, Option<f64>>, String> {
        let mut numbers = BTreeMap::new();
        for key in ["p50_us", "p99_us", "max_us"] {
            let found = match is_failover {
                true => self.number(key)?,
                false => Some(self.needed(key)?),
            };
            numbers.insert(key, found);
        }
        for key in [
            "p90_us",
            "p999_us",
            "p9999_us",
            "ack_p50_us",
            "ack_p99_us",
            "received",
            "lost",
            "acknowledged_lost",
            "duplicated",
            "disordered",
            "lateness_p99_us",
        ] {
            numbers.insert(key, self.number(key)?);
        }
        // No latency is 0: a driver that gave a rate up before the measured time has measured none.
        if numbers["max_us"] == Some(0.0) {
            let latencies = numbers.iter_mut().filter(|(key, _)| key.ends_with("_us"));
            latencies.for_each(|(_, found)| *found = None);
        }
        numbers.insert("sent", self.either("sent", "offered")?);
        Ok(numbers)
    }

    /// Rows of `width` numbers, the first of which never falls.
    fn points(&mut self, key: &str, width: usize) -> Result<Vec<Vec<f64>>, String> {
        let wrong = || format!("`{key}` is no list of rows of {width} numbers, ascending");
        let rows = match self.0.remove(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(rows)) if rows.len() <= POINTS_MAX => rows,
            Some(_) => return Err(wrong()),
        };
        let row = |row: &Value| -> Option<Vec<f64>> {
            row.as_array()?.iter().map(Value::as_f64).collect()
        };
        let rows: Option<Vec<_>> = rows.iter().map(row).collect();
        let rows = rows.ok_or_else(wrong)?;
        let is_whole = rows.iter().all(|row| row.len() == width);
        match is_whole && rows.is_sorted_by(|a, b| a[0] <= b[0]) {
            true => Ok(rows),
            false => Err(wrong()),
        }
    }

    fn hops(&mut self) -> Result<BTreeMap<String, Hop>, String> {
        let mut found = match self.0.remove("hops") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(hops)) => hops,
            Some(_) => return Err("`hops` is no object".into()),
        };
        for name in MORE_HOPS {
            if let Some(hop @ Value::Object(_)) = self.0.remove(name) {
                found.insert(name.into(), hop);
            }
        }
        let hop = |(name, hop): (String, Value)| {
            let at = |key: &str| hop.get(key).and_then(Value::as_f64);
            match (at("p50_us"), at("p99_us"), at("max_us")) {
                (Some(p50_us), Some(p99_us), Some(max_us)) => {
                    let hop = Hop {
                        p50_us,
                        p99_us,
                        max_us,
                    };
                    Ok((name, hop))
                }
                _ => Err(format!(
                    "hop `{name}` lacks one of `p50_us`, `p99_us` and `max_us`"
                )),
            }
        };
        found.into_iter().map(hop).collect()
    }

    fn outages(&mut self) -> Result<Vec<f64>, String> {
        let single = self.number("outage_ms")?;
        let summary = self.either("outage_ms_p50", "outage_ms_max")?;
        let several = match self.0.remove("outages_ms") {
            None | Some(Value::Null) => return Ok(single.or(summary).into_iter().collect()),
            Some(Value::Array(several)) => several,
            Some(_) => return Err("`outages_ms` is no list".into()),
        };
        let several: Option<Vec<_>> = several.iter().map(Value::as_f64).collect();
        several.ok_or_else(|| "`outages_ms` is no list of numbers".into())
    }

    /// What an object says, without what is no text, number or truth.
    fn nested(&mut self, key: &str) -> BTreeMap<String, Value> {
        match self.0.remove(key) {
            Some(Value::Object(object)) => object.into_iter().filter_map(plain).collect(),
            _ => BTreeMap::new(),
        }
    }

    /// Everything left.
    fn settings(&mut self) -> BTreeMap<String, Value> {
        let mut settings = self.nested("settings");
        settings.extend(std::mem::take(&mut self.0).into_iter().filter_map(plain));
        settings
    }
}

/// Lists become text; null and objects go.
fn plain((key, value): (String, Value)) -> Option<(String, Value)> {
    let value = match value {
        Value::Null | Value::Object(_) => return None,
        Value::Array(list) if list.is_empty() => return None,
        Value::Array(list) => {
            let texts = list.iter().map(|item| match item {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            Value::String(texts.collect::<Vec<_>>().join(", "))
        }
        value => value,
    };
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: &Value) -> Value {
        serde_json::to_value(Run::of(value).expect("a result")).expect("it is JSON")
    }

    #[test]
    fn other_systems_results_are_taken_as_their_drivers_print_them() {
        let found = shown(&json!({
            "variant": "a-broker", "name": "else", "peer": "broker", "holds": "memory", "copies": "2 of 3", "run": 2,
            "what": "throughput", "rate": "max", "msgs_per_s": 5.5, "p50_us": 1, "p90_us": 2, "p99_us": 3,
            "p999_us": 4, "max_us": 5, "sent": 9, "received": 9, "lost": 0, "ack_p50_us": null, "idle": "yield",
        }));
        assert_eq!(
            (&found["name"], &found["copies"]),
            (&"a-broker".into(), &"2 of 3".into())
        );
        assert_eq!(
            (&found["rate"], &found["achieved"]),
            (&Value::Null, &5.5.into())
        );
        assert_eq!((&found["run"], &found["sent"]), (&"2".into(), &9.0.into()));
        assert_eq!(
            found["settings"],
            json!({"idle": "yield", "peer": "broker"})
        );
        assert_eq!(found["held"], true);
    }

    #[test]
    fn a_rate_that_did_not_arrive_was_not_held() {
        let run = |achieved| {
            shown(
                &json!({"name": "a", "rate": 1000, "achieved": achieved, "p50_us": 1, "p99_us": 2, "max_us": 3}),
            )
        };
        assert_eq!(
            (&run(940)["held"], &run(960)["held"]),
            (&false.into(), &true.into())
        );
    }

    #[test]
    fn a_rate_that_was_given_up_before_it_was_measured_has_no_latencies() {
        let found = shown(
            &json!({"name": "a", "rate": 50_000, "held": false, "achieved": 900, "p50_us": 0.0, "p99_us": 0.0, "max_us": 0.0, "received": 10}),
        );
        assert_eq!(
            (&found["p50_us"], &found["p99_us"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(
            (&found["achieved"], &found["received"]),
            (&900.0.into(), &10.0.into())
        );
    }

    #[test]
    fn a_failover_needs_no_latencies() {
        let single = shown(&json!({"variant": "a", "outage_ms": 400.5, "lost": 0}));
        assert_eq!(
            (&single["outages_ms"], &single["what"]),
            (&json!([400.5]), &"failover".into())
        );
        let several = shown(
            &json!({"name": "b", "outages_ms": [1, 2], "outage_ms_p50": 1, "outage_ms_max": 2}),
        );
        assert_eq!(several["outages_ms"], json!([1.0, 2.0]));
    }

    #[test]
    fn a_point_of_a_scale_curve_keeps_its_place() {
        let found = shown(
            &json!({"name": "a", "p50_us": 1, "p99_us": 2, "max_us": 3, "curve": "topics", "x": 100_000, "cpu_us_per_message": 8.5}),
        );
        assert_eq!(
            (&found["curve"], &found["x"]),
            (&"topics".into(), &100_000.0.into())
        );
        assert_eq!(found["settings"]["cpu_us_per_message"], 8.5);
    }

    #[test]
    fn the_floors_hops_are_hops() {
        let hop = json!({"p50_us": 1, "p99_us": 2, "max_us": 3});
        let found = shown(
            &json!({"name": "a", "p50_us": 1, "p99_us": 2, "max_us": 3, "received_to_written": hop}),
        );
        assert_eq!(found["hops"]["received_to_written"]["p99_us"], 2.0);
    }

    #[test]
    fn what_is_of_the_wrong_kind_is_refused_by_name() {
        for (key, value) in [
            ("percentiles", json!([[50, 1], [40, 2]])),
            ("percentiles", json!([[50]])),
            ("over_time", json!([[0, 1, 2]])),
            ("hops", json!({"a": {"p50_us": 1}})),
            ("hops", json!(3)),
            ("outages_ms", json!(["x"])),
            ("rate", json!("fast")),
            ("lost", json!("none")),
            ("holds", json!({})),
            ("curve", json!("subscribers")),
            ("x", json!(10)),
        ] {
            let mut result = json!({"name": "a", "p50_us": 1, "p99_us": 2, "max_us": 3});
            result[key] = value.clone();
            let reason = Run::of(&result).expect_err(key);
            assert!(reason.contains('`'), "{key} {value}: {reason}");
        }
    }
}
