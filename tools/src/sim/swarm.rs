//! What a run is like: everything that is not an event is drawn here, from the seed.
//!
//! Swarm testing (Groce and others, 2012): a mix that always has a little of everything hardly ever has much of anything.
//! So each seed leaves out about half of the faults and draws sizes, rates and times of its own.

use std::sync::Arc;

use relay_core::credential::{Credential, CredentialBook};
use relay_core::group::{GroupSettings, PeerSettings};
use relay_core::settings::Settings;
use relay_journal::superblock::WriteMethod;
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, NodeId, PublisherId, StreamId};
use relay_wire::membership::{Member, Members, Membership};

use crate::clock::{MILLISECOND, SECOND};
use crate::content::Contents;
use crate::disk::Latencies;
use crate::faults::{self, Cast, Damage, Fault, Scheduled, themed};
use crate::network::Conduct;
use crate::random::{Random, mix};
use crate::theme::Theme;

/// The stream of every run.
pub(crate) const STREAM: StreamId = StreamId(9);
/// The secret every credential has.
pub(crate) const SECRET: &[u8] = b"sixteen bytes or so";
/// Name of the subscribers' credential.
pub(crate) const READER: &str = "reader";

/// What a caller may fix; the rest is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Nodes of the group.
    pub(crate) nodes: Option<usize>,
    /// Simulated seconds with faults.
    pub(crate) seconds: Option<u64>,
    /// Messages a second, all publishers together.
    pub(crate) rate: Option<u64>,
    /// Mean milliseconds between two faults.
    pub(crate) pause_ms: Option<u64>,
    /// Whether the run may damage every copy there is.
    pub(crate) is_beyond: Option<bool>,
    /// Whether a group's run may damage one copy.
    pub(crate) damages_copy: Option<bool>,
    /// What a group's run is about.
    pub(crate) theme: Option<Theme>,
    /// How many of a million changes at the arbiter nobody hears the outcome of.
    pub(crate) doubt: Option<u32>,
}

/// What a group's nodes have in common. Times are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) min_copies: u8,
    is_manual: bool,
    heartbeat_ns: u64,
    suspect_ns: u64,
    suspect_closed_ns: u64,
    head_start_ns: u64,
    start_wait_ns: u64,
    ack_deadline_ns: u64,
    readmit_after_ns: u64,
    disk_stall_ns: u64,
    retry_ns: u64,
    floor_every_ns: u64,
    catch_up_rate: u64,
}

/// A run's parameters.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) seed: u64,
    pub(crate) cast: Cast,
    pub(crate) theme: Theme,
    pub(crate) is_beyond: bool,
    pub(crate) damage: Damage,
    /// An operator accepts a loss where nothing else brings the group back.
    pub(crate) accepts_loss: bool,
    /// Simulated time in which faults strike.
    pub(crate) duration_ns: u64,
    /// Simulated time after that in which everything must come to rest.
    pub(crate) patience_ns: u64,
    /// Settings of node 1; other nodes differ in their number.
    pub(crate) settings: Settings,
    /// What a group's nodes have in common.
    pub(crate) group: Group,
    pub(crate) write_method: WriteMethod,
    /// Segments prepared ahead of what is released.
    pub(crate) prepared_ahead: u64,
    /// Bytes of log between two checkpoints.
    pub(crate) checkpoint_every: u64,
    pub(crate) topics: u32,
    pub(crate) contents: Contents,
    /// Messages of each publisher.
    pub(crate) quota: u64,
    /// Mean time between two bursts of a publisher.
    pub(crate) burst_pause_ns: u64,
    /// Most messages of a burst.
    pub(crate) burst_max: u64,
    pub(crate) conduct: Conduct,
    /// How many of a million changes at the arbiter nobody hears the outcome of.
    pub(crate) doubt_per_million: u32,
    /// Mean time after which a request lands there that was given up.
    pub(crate) late_ns: u64,
    pub(crate) latencies: Latencies,
    /// Time from something to do to the turn that does it.
    pub(crate) turn_ns: u64,
    /// A process looks at its clock at least so often.
    pub(crate) tick_ns: u64,
    /// Mean time from an end to the next start.
    pub(crate) restart_ns: u64,
    /// Most by which a node's second is wrong, parts per million.
    pub(crate) drift_ppm: u64,
    pub(crate) schedule: Vec<Scheduled>,
}

impl Parameters {
    /// Draws the parameters of `seed`.
    pub(crate) fn draw(seed: u64, wish: &Wish) -> Self {
        let mut random = Random::of(seed, 0);
        let nodes = random.pick(&[1, 2, 2, 3]);
        let mut cast = Cast {
            nodes: wish.nodes.unwrap_or(nodes),
            observers: 0,
            publishers: random.within(1, 4) as usize,
            subscribers: random.within(1, 4) as usize,
        };
        let mut themes = Random::of(seed, 7);
        let theme = Theme::draw(&mut themes);
        let theme = match cast.nodes {
            1 => Theme::Plain,
            _ => wish.theme.unwrap_or(theme),
        };
        if cast.nodes > 1 && theme.has_observers() && Random::of(seed, 8).chance(150_000) {
            cast.observers = 1;
            cast.nodes += 1;
        }
        // One run in eight goes beyond the promise; where disks forget, one in three, and for other themes there is no beyond.
        let draws_beyond = random.chance(125_000);
        let draws_beyond = match theme {
            Theme::Plain => draws_beyond,
            _ => themes.chance(333_333),
        };
        let can_go_beyond = matches!(theme, Theme::Plain | Theme::Forgetful);
        let is_beyond = wish.is_beyond.unwrap_or(draws_beyond) && can_go_beyond;
        let seconds = random.within(2, 8);
        let duration_ns = wish.seconds.unwrap_or(seconds) * SECOND;
        let pause_ms = random.pick(&[50, 150, 400, 1_000]);
        let pause_ns = wish.pause_ms.unwrap_or(pause_ms) * MILLISECOND;
        let topics = random.within(1, 12) as u32;
        let mut settings = draw_settings(&mut random, cast, topics);
        if theme == Theme::Mirrored {
            settings.policy = Policy::Mirrored;
        }
        let rate = random.pick(&[20, 200, 1_000, 1_000, 4_000]);
        let rate = wish.rate.unwrap_or(rate);
        let burst_max = random.pick(&[1_u64, 1, 3, 20]);
        let per_publisher = (rate / cast.publishers as u64).max(1);
        let burst_mean = burst_max.div_ceil(2);
        let segment = settings.segment_size;
        let mut arbiter = Random::of(seed, 5);
        let ahead_min = (4 * u64::from(settings.block_span_max())).div_ceil(segment) + 1;
        let mut group = draw_group(&mut random, cast);
        group.is_manual = theme == Theme::Manual;
        if group.is_manual {
            // Nothing but hearing of another one keeps a node from leading again: it waits for longer than a connection takes.
            group.start_wait_ns = group.start_wait_ns.max(SECOND);
        }
        if theme == Theme::Forgetful && !is_beyond {
            // One copy may forget what another one still has.
            group.min_copies = 2;
        }
        let draws_damage = Random::of(seed, 6).chance(400_000);
        let damages_copy = wish.damages_copy.unwrap_or(draws_damage) || theme == Theme::Forgetful;
        let can_be_damaged = matches!(theme, Theme::Plain | Theme::Forgetful);
        let damage = if is_beyond {
            Damage::EveryCopy
        } else if cast.nodes > 1 && group.min_copies > 1 && damages_copy && can_be_damaged {
            Damage::OneCopy
        } else {
            Damage::None
        };
        let mut fault_random = Random::of(seed, 1);
        let at_rest = match theme {
            Theme::Plain => damage,
            _ => Damage::None,
        };
        let mut schedule = faults::draw(&mut fault_random, cast, duration_ns, pause_ns, at_rest);
        themed::suit(
            theme,
            is_beyond,
            &mut themes,
            cast,
            duration_ns,
            &mut schedule,
        );
        let doubt = arbiter.pick(&[0, 0, 100_000, 400_000]);
        let doubt = wish.doubt.unwrap_or(doubt);
        Self {
            seed,
            cast,
            theme,
            is_beyond,
            damage,
            accepts_loss: themes.chance(400_000),
            duration_ns,
            patience_ns: match damage {
                Damage::None | Damage::OneCopy if theme.has_operator() => 60 * SECOND,
                Damage::None | Damage::OneCopy => 40 * SECOND,
                Damage::EveryCopy => 20 * SECOND,
            },
            contents: Contents::new(seed, topics, settings.payload_limit),
            group,
            write_method: random.pick(WriteMethod::ALL),
            prepared_ahead: ahead_min + random.below(4),
            checkpoint_every: random.within(1, 8) * segment,
            topics,
            quota: per_publisher * duration_ns / SECOND,
            burst_pause_ns: SECOND * burst_mean / per_publisher,
            burst_max,
            conduct: draw_conduct(&mut random),
            doubt_per_million: if theme.has_doubts() { doubt } else { 0 },
            late_ns: arbiter.pick(&[200, 700, 3_000]) * MILLISECOND,
            latencies: draw_latencies(&mut random),
            turn_ns: random.within(1, 20) * 1_000,
            tick_ns: random.within(1, 8) * MILLISECOND,
            restart_ns: random.pick(&[2, 50, 400]) * MILLISECOND,
            drift_ppm: random.pick(&[0, 50, 500]),
            settings,
            schedule,
        }
    }

    /// How many released bytes a node may lose without knowing: nothing within the promise; what a disk that forgets can
    /// forget beyond it; and where it damages what it holds, what recovery can't tell from a torn end.
    pub(crate) fn may_lose(&self) -> Option<u64> {
        let forgets = |scheduled: &Scheduled| {
            matches!(
                scheduled.fault,
                Fault::Lie { .. }
                    | Fault::Blank { .. }
                    | Fault::OldCopy { .. }
                    | Fault::AgeRead { .. }
            )
        };
        self.is_beyond.then(|| {
            if self.schedule.iter().any(forgets) {
                u64::MAX
            } else {
                self.settings.in_flight_bytes_max()
            }
        })
    }

    /// The settings of a group's node, in its process of that number.
    pub(crate) fn group_settings(
        &self,
        node: usize,
        incarnation: u64,
        number: u32,
    ) -> GroupSettings {
        let group = &self.group;
        let process = mix(self.seed ^ (node as u64) << 32 ^ u64::from(number)).max(1);
        let others = (0..self.cast.nodes).filter(|other| *other != node);
        GroupSettings {
            identity: Member {
                node: NodeId(node as u64 + 1),
                incarnation,
                process: if self.settings.policy == Policy::Mirrored {
                    process
                } else {
                    0
                },
            },
            process,
            seed: mix(process),
            logged_span_max: 0,
            is_observer: self.cast.is_observer(node),
            peers: others
                .map(|other| PeerSettings {
                    node: NodeId(other as u64 + 1),
                    is_observer: self.cast.is_observer(other),
                })
                .collect(),
            secret: SECRET.to_vec(),
            policy: self.settings.policy,
            min_copies: group.min_copies,
            is_manual: group.is_manual,
            heartbeat_ns: group.heartbeat_ns,
            suspect_ns: group.suspect_ns,
            suspect_closed_ns: group.suspect_closed_ns,
            head_start_ns: group.head_start_ns,
            start_wait_ns: group.start_wait_ns,
            ack_deadline_ns: group.ack_deadline_ns,
            readmit_after_ns: group.readmit_after_ns,
            disk_stall_ns: group.disk_stall_ns,
            retry_ns: group.retry_ns,
            floor_every_ns: group.floor_every_ns,
            catch_up_rate: group.catch_up_rate,
        }
    }

    /// The record a group begins with; `incarnations` are those of its disks.
    pub(crate) fn first_record(&self, incarnations: &[u64]) -> Membership {
        let members: Vec<Member> = incarnations[..self.cast.data_nodes()]
            .iter()
            .enumerate()
            .map(|(node, &incarnation)| Member {
                node: NodeId(node as u64 + 1),
                incarnation,
                process: 0,
            })
            .collect();
        Membership {
            stream: STREAM,
            epoch: Epoch(1),
            nonce: mix(self.seed),
            primary: NodeId(1),
            members: Members::of(&members),
            min_copies: self.group.min_copies,
            policy: self.settings.policy,
        }
    }

    /// The settings of one node.
    pub(crate) fn settings_of(&self, node: usize) -> Settings {
        Settings {
            node: NodeId(node as u64 + 1),
            ..self.settings.clone()
        }
    }

    /// Who may log on.
    pub(crate) fn credentials(&self) -> Arc<CredentialBook> {
        let credential = |name: String, publisher| Credential {
            name,
            secret: SECRET.to_vec(),
            publisher,
            publish: vec!["orders.>".to_owned(), "book.>".to_owned()],
            subscribe: vec![">".to_owned()],
            rate_limit: 0,
        };
        let mut credentials = vec![credential(READER.to_owned(), None)];
        for publisher in 0..self.cast.publishers {
            let id = PublisherId(publisher as u64 + 1);
            credentials.push(credential(publisher_name(publisher), Some(id)));
        }
        Arc::new(CredentialBook::new(credentials))
    }
}

/// The credential of a publisher.
pub(crate) fn publisher_name(publisher: usize) -> String {
    format!("gateway-{publisher}")
}

fn draw_settings(random: &mut Random, cast: Cast, topics: u32) -> Settings {
    // An epoch's opening records fit one unit, which needs more in a group.
    let smallest = if cast.nodes > 1 { 1_024 } else { 512 };
    let block_alignment = random.pick(&[smallest, smallest, 4_096]);
    let block_length_max = random.pick(&[4_096, 8_192, 16_384]);
    let mut settings = Settings {
        node: NodeId(1),
        stream: STREAM,
        policy: if cast.nodes == 1 {
            Policy::Local
        } else {
            Policy::Durable
        },
        payload_limit: random.pick(&[64, 512, 2_048]),
        credit: 0,
        heartbeat_ns: random.pick(&[100, 300, 1_000]) * MILLISECOND,
        logon_timeout_ns: random.within(300, 2_000) * MILLISECOND,
        connections_max: cast.clients() as u32 * 2 + random.within(2, 6) as u32,
        unauthenticated_max: cast.clients() as u32 + 2,
        publishers_max: cast.publishers as u32,
        topics_max: topics,
        subscribers_max: cast.subscribers as u32 + random.within(1, 3) as u32,
        block_alignment,
        block_length_max,
        seal_threshold: random.within(1, block_length_max.into()) as u32,
        eager_depth: random.within(1, 3) as u32,
        write_depth: random.pick(&[2, 4, 8]),
        segment_size: random.pick(&[1, 2, 4, 16]) * (64 << 10),
        ring_size: 0,
        mark_after_ns: 10 * MILLISECOND,
        stall_limit_ns: random.within(500, 3_000) * MILLISECOND,
        lag_limit: 0,
        replay_slots: random.within(1, 3) as u32,
        replay_slot_size: 0,
    };
    let span = u64::from(settings.block_span_max());
    let least_ring = (8 * span).next_power_of_two().max(128 << 10);
    settings.ring_size = least_ring * random.pick(&[1, 2, 4]);
    let record = settings.record_stride_max() as u64;
    settings.credit = random.within(record, settings.ring_size / 2);
    settings.replay_slot_size = settings.block_span_max() * random.pick(&[1, 4]);
    if random.chance(200_000) {
        settings.lag_limit = 2 * settings.ring_size;
    }
    settings
}

fn draw_group(random: &mut Random, cast: Cast) -> Group {
    let heartbeat_ns = random.pick(&[5, 10, 20]) * MILLISECOND;
    let head_start_ns = 3 * heartbeat_ns;
    Group {
        min_copies: random.within(1, cast.data_nodes().min(2) as u64) as u8,
        is_manual: false,
        heartbeat_ns,
        suspect_ns: random.pick(&[100, 200, 500]) * MILLISECOND,
        suspect_closed_ns: random.pick(&[5, 40, 100]) * MILLISECOND,
        head_start_ns,
        start_wait_ns: random.pick(&[200, 1_000, 2_000]) * MILLISECOND,
        ack_deadline_ns: random.pick(&[300, 1_000]) * MILLISECOND,
        readmit_after_ns: random.pick(&[50, 200]) * MILLISECOND,
        disk_stall_ns: random.pick(&[150, 300]) * MILLISECOND,
        retry_ns: random.pick(&[10, 50]) * MILLISECOND,
        floor_every_ns: random.pick(&[100, 1_000]) * MILLISECOND,
        catch_up_rate: random.pick(&[8 << 20, 64 << 20, 1 << 30]),
    }
}

fn draw_conduct(random: &mut Random) -> Conduct {
    Conduct {
        least_ns: random.within(5, 50) * 1_000,
        jitter_ns: random.pick(&[1, 20, 500]) * 1_000,
        window: random.pick(&[4 << 10, 64 << 10, 256 << 10]),
        cut_per_million: random.pick(&[0, 20_000, 300_000]),
    }
}

fn draw_latencies(random: &mut Random) -> Latencies {
    let scale = random.pick(&[1, 1, 10]);
    Latencies {
        least_ns: random.within(5, 50) * 1_000,
        write_ns: random.within(10, 300) * 1_000 * scale,
        sync_ns: random.within(50, 500) * 1_000 * scale,
        read_ns: random.within(20, 200) * 1_000 * scale,
    }
}
