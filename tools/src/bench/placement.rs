//! Which thread runs on which CPU, the same for the relay and for its floor, or their ratio would say nothing.
//!
//! ```text
//! 2 CPUs      CPU 0: every node        CPU 1: the clients
//! 4 or more   CPU 0: node 1            CPU 1: the clients       CPU 2: node 2       CPU 3: node 3
//! ```
//!
//! Several streams of one node take the places of several nodes, round and round where there are fewer CPUs.
//!
//! The clients have a CPU of their own, or they would measure how long they wait for it. On two CPUs the nodes share the other
//! one, on which they take turns as a message needs them: who has passed it on has nothing more to do. A witness is left to the scheduler: it sleeps unless membership changes.

use clap::Args;
use serde::Serialize;

use super::cpu_count;
use crate::exit::Failure;

/// Options of everything that is measured on chosen CPUs.
#[derive(Debug, Args)]
pub(super) struct PlacementOptions {
    /// CPUs of the nodes' threads, node by node or stream by stream: for each one in shared mode, three in split mode [default: 0 for the
    /// first node, and one more CPU for each other where there are enough, or else 0 too]
    #[arg(long, value_name = "CPU", value_delimiter = ',', alias = "server-cpu")]
    server_cpus: Vec<usize>,
    /// CPU of the client's thread [default: 1 where there are two]
    #[arg(long, value_name = "CPU")]
    client_cpu: Option<usize>,
    /// Leave all threads to the scheduler
    #[arg(long, conflicts_with_all = ["server_cpus", "client_cpu"])]
    unpinned: bool,
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Placement {
    /// Node by node, for each as many as it has threads; empty for no pinning.
    pub(super) server_cpus: Vec<usize>,
    pub(super) client_cpu: Option<usize>,
    /// What has a place: node or stream.
    #[serde(skip)]
    what: &'static str,
    #[serde(skip)]
    threads: usize,
}

impl PlacementOptions {
    /// The placement of so many of them, nodes or streams, with so many threads each.
    pub(super) fn of(
        &self,
        what: &'static str,
        count: usize,
        threads: usize,
    ) -> Result<Placement, Failure> {
        let mut found = self.on(cpu_count(), count, threads);
        found.what = what;
        let (wanted, given) = (count * threads, found.server_cpus.len());
        if self.unpinned || given == wanted {
            return Ok(found);
        }
        Err(Failure::Usage(format!(
            "{count} {what}s of {threads} threads take {wanted} CPUs, {given} are given; separate them by commas, they may \
             repeat"
        )))
    }

    /// What tells a result from one at the usual places, with a comma before each.
    pub(super) fn label(&self) -> String {
        if self.unpinned {
            return ", unpinned".into();
        }
        let mut label = String::new();
        if !self.server_cpus.is_empty() {
            let cpus: Vec<_> = self.server_cpus.iter().map(usize::to_string).collect();
            label += &format!(", servers on CPU {}", cpus.join("+"));
        }
        if let Some(cpu) = self.client_cpu {
            label += &format!(", clients on CPU {cpu}");
        }
        label
    }

    fn on(&self, cpus: usize, nodes: usize, threads: usize) -> Placement {
        if self.unpinned {
            return Placement {
                server_cpus: Vec::new(),
                client_cpu: None,
                what: "node",
                threads,
            };
        }
        let of_node = |node: usize| {
            // All but the clients'.
            match node % (cpus - 1).max(1) {
                0 => 0,
                turn => turn + 1,
            }
        };
        let server_cpus = match (nodes, threads) {
            _ if !self.server_cpus.is_empty() => self.server_cpus.clone(),
            (1, 3) if cpus >= 4 => vec![0, 2, 3],
            _ => (0..nodes)
                .flat_map(|node| std::iter::repeat_n(of_node(node), threads))
                .collect(),
        };
        Placement {
            server_cpus,
            client_cpu: self.client_cpu.or((cpus >= 2).then_some(1)),
            what: "node",
            threads,
        }
    }
}

impl Placement {
    /// Of clients alone, which know nothing of where the nodes run.
    pub(super) fn without_servers(self) -> Self {
        Self {
            server_cpus: Vec::new(),
            what: "",
            ..self
        }
    }

    /// CPUs of the node at `place`, from 0; empty for no pinning.
    pub(super) fn node(&self, place: usize) -> &[usize] {
        let mut of_nodes = self.server_cpus.chunks(self.threads);
        of_nodes.nth(place).unwrap_or_default()
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        if self.server_cpus.is_empty() && self.client_cpu.is_none() {
            let whose = if self.what.is_empty() {
                "clients"
            } else {
                "all threads"
            };
            return format!("{whose} where the scheduler puts them");
        }
        let nodes = self.server_cpus.chunks(self.threads).zip(1..);
        let mut parts: Vec<_> = nodes
            .map(|(cpus, node)| {
                let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
                format!("{} {node} on CPU {}", self.what, cpus.join("+"))
            })
            .collect();
        if let Some(cpu) = self.client_cpu {
            parts.push(format!("clients on CPU {cpu}"));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: PlacementOptions = PlacementOptions {
        server_cpus: Vec::new(),
        client_cpu: None,
        unpinned: false,
    };

    #[test]
    fn the_clients_have_a_cpu_of_their_own() {
        let cases: [(usize, usize, usize, &[usize]); 9] = [
            (1, 2, 1, &[0, 0]),
            (2, 1, 1, &[0]),
            (2, 2, 1, &[0, 0]),
            (2, 3, 1, &[0, 0, 0]),
            (2, 1, 3, &[0, 0, 0]),
            (4, 1, 3, &[0, 2, 3]),
            (4, 3, 1, &[0, 2, 3]),
            (4, 2, 3, &[0, 0, 0, 2, 2, 2]),
            (4, 8, 1, &[0, 2, 3, 0, 2, 3, 0, 2]),
        ];
        for (cpus, nodes, threads, expected) in cases {
            let found = FREE.on(cpus, nodes, threads);
            assert_eq!(found.server_cpus, expected, "{nodes} on {cpus}");
            assert_eq!(found.client_cpu, (cpus > 1).then_some(1));
        }
    }

    #[test]
    fn what_is_given_must_fit() {
        let given = PlacementOptions {
            server_cpus: vec![3, 4],
            ..FREE
        };
        let placement = given.of("node", 2, 1).expect("one for each");
        assert_eq!(placement.node(1), [4]);
        assert!(
            placement
                .text()
                .starts_with("node 1 on CPU 3, node 2 on CPU 4")
        );
        assert!(matches!(given.of("node", 2, 3), Err(Failure::Usage(_))));
        let free = PlacementOptions {
            unpinned: true,
            ..FREE
        };
        let labels = [FREE.label(), given.label(), free.label()];
        assert_eq!(labels, ["", ", servers on CPU 3+4", ", unpinned"]);
        assert!(free.of("node", 3, 3).expect("anything").node(2).is_empty());
    }
}
