//! What control records say about a node, in words and as fields: the key of its seals, the worth of its clock.

use relay_client::wire::code::{ClockDiscipline, RecordKind};
use relay_client::wire::record::{ERROR_UNBOUNDED, Record, clock_body, seal_key_body};
use serde::Serialize;

use crate::output::hex;

/// See the module's description.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said<'a> {
    /// With which key the node that leads signs its seals.
    SealKey {
        node: u64,
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        replaced: Option<String>,
    },
    /// What the clock of the node that leads is worth.
    Clock {
        node: u64,
        measured_ns: u64,
        /// Nothing where the clock follows no source.
        error_bound_ns: Option<u64>,
        offset_ns: i64,
        kernel_error_ns: u64,
        kernel_error_ns_max: u64,
        frequency_ppt: i64,
        state: u8,
        discipline: String,
        sources: &'a str,
    },
}

impl<'a> Said<'a> {
    /// What a record says; nothing for other kinds.
    pub(super) fn of(record: &Record<'a>) -> Option<Self> {
        match record.kind()? {
            RecordKind::SealKey => {
                let body = seal_key_body(record.payload())?;
                let is_replaced = body.replaced != [0; 32];
                Some(Self::SealKey {
                    node: body.node.get(),
                    key: hex(&body.key),
                    replaced: is_replaced.then(|| hex(&body.replaced)),
                })
            }
            RecordKind::Clock => {
                let (body, sources) = clock_body(record.payload())?;
                let bound = body.error_bound_ns.get();
                let discipline = ClockDiscipline::from_number(body.discipline);
                Some(Self::Clock {
                    node: body.node.get(),
                    measured_ns: body.measured_ns.get(),
                    error_bound_ns: (bound != ERROR_UNBOUNDED).then_some(bound),
                    offset_ns: body.offset_ns.get(),
                    kernel_error_ns: body.kernel_error_ns.get(),
                    kernel_error_ns_max: body.kernel_error_ns_max.get(),
                    frequency_ppt: body.frequency_ppt.get(),
                    state: body.state,
                    discipline: match discipline {
                        Some(discipline) => format!("{discipline:?}").to_lowercase(),
                        None => body.discipline.to_string(),
                    },
                    sources,
                })
            }
            _ => None,
        }
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::SealKey {
                node,
                key,
                replaced,
            } => {
                let instead = replaced.as_ref();
                let instead =
                    instead.map_or(String::new(), |before| format!(" instead of {before}"));
                format!("node {node} seals with key {key}{instead}")
            }
            Self::Clock {
                node,
                error_bound_ns,
                offset_ns,
                discipline,
                sources,
                ..
            } => {
                let bound = match error_bound_ns {
                    Some(bound) => format!("within {:.3} us of UTC", *bound as f64 / 1e3),
                    None => "of unknown error".to_owned(),
                };
                let offset = *offset_ns as f64 / 1e3;
                format!(
                    "the clock of node {node} is {bound}, estimated offset {offset:.3} us, kept right by \
                     {discipline}: {sources}"
                )
            }
        }
    }
}
