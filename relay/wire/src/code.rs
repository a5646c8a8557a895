//! Closed sets of numbers with a meaning, as `FORMAT.md` lists them.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $inner:ty { $($(#[$vdoc:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr($inner)]
        pub enum $name { $($(#[$vdoc])* $variant = $value),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: $inner) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// Its number on the wire.
            #[must_use]
            pub const fn number(self) -> $inner {
                self as $inner
            }
        }
    };
}

codes!(
    /// Kinds of record.
    RecordKind: u8 {
        /// A message.
        Data = 1,
        /// Defines a topic.
        Topic = 2,
        /// Begins a publisher's incarnation.
        PublisherSession = 3,
        /// Opens an epoch.
        Epoch = 4,
        /// Opens a trading session.
        TradingSession = 5,
        /// An operator made a node lead although something released may be missing there.
        Unclean = 6,
        /// Names the key with which the node that leads signs its seals.
        SealKey = 7,
        /// What the clock that stamps is worth.
        Clock = 8,
    }
);

codes!(
    /// By what a clock is kept right.
    ClockDiscipline: u8 {
        /// By nothing that is known.
        None = 0,
        /// By chrony.
        Chrony = 1,
        /// By PTP: chrony with a PTP hardware clock, or ptp4l.
        Ptp = 2,
        /// By another daemon through the kernel.
        Kernel = 3,
    }
);

codes!(
    /// Kinds of session message.
    MessageKind: u8 {
        /// The relay's nonce.
        Challenge = 128,
        /// Who is there, with proof.
        Logon = 129,
        /// The relay's answer, with its own proof.
        LogonAck = 130,
        /// The end of the connection.
        Terminate = 131,
        /// A sign of life with progress.
        Heartbeat = 132,
        /// Asks for a topic's id.
        TopicRequest = 133,
        /// A topic's id.
        Topic = 134,
        /// Cumulative acknowledgement.
        Ack = 135,
        /// A record or request refused.
        Reject = 136,
        /// What a subscriber wants.
        Subscribe = 137,
        /// Where its delivery starts.
        Subscribed = 138,
    }
);

codes!(
    /// What a client comes for.
    Role: u8 {
        /// Sends records.
        Publisher = 1,
        /// Receives records.
        Subscriber = 2,
    }
);

codes!(
    /// Why a connection ends.
    TerminateCode: u16 {
        /// An orderly end.
        Logout = 1,
        /// The relay is being stopped.
        Stopping = 2,
        /// An item that is malformed or not allowed here.
        Protocol = 3,
        /// A checksum that does not fit.
        Checksum = 4,
        /// A protocol version not spoken.
        Version = 5,
        /// A proof, name, role or publisher that is not known.
        Authentication = 6,
        /// No logon within the time for it.
        LogonTimeout = 7,
        /// Nothing heard for five of the client's intervals.
        Silent = 8,
        /// A pattern the credential may not read.
        NotEntitled = 9,
        /// The same publisher logged on elsewhere.
        Superseded = 10,
        /// An incarnation lower than one already used.
        OldIncarnation = 11,
        /// The publisher can never supply what is expected.
        SequenceLost = 12,
        /// The subscriber lay behind for too long.
        TooSlow = 13,
        /// The record before the asked seq has another checksum.
        WrongHistory = 14,
        /// The asked seq lies beyond what was ever released.
        BeyondTail = 15,
        /// No place for another connection.
        Full = 16,
        /// Another node serves.
        NotPrimary = 17,
        /// The node's disk failed.
        StorageFault = 18,
        /// An item longer than allowed.
        TooLong = 19,
        /// A stream not served here.
        UnknownStream = 20,
    }
);

impl TerminateCode {
    /// Whether a client may expect to be served when it connects again by itself.
    #[must_use]
    pub const fn is_worth_a_reconnect(self) -> bool {
        matches!(
            self,
            Self::Stopping
                | Self::Checksum
                | Self::LogonTimeout
                | Self::Silent
                | Self::TooSlow
                | Self::Full
                | Self::NotPrimary
                | Self::StorageFault
        )
    }
}

codes!(
    /// Why a record or a topic request was refused.
    RejectCode: u16 {
        /// The credential may not publish to the topic.
        NotEntitled = 1,
        /// The payload is over the limit.
        TooLarge = 2,
        /// A publisher sequence further than the next expected.
        Gap = 3,
        /// Over the credential's rate.
        Throttled = 4,
        /// Another node serves.
        NotPrimary = 5,
        /// An id that no topic has.
        UnknownTopic = 6,
        /// A name that breaks the rules.
        BadTopic = 7,
        /// The configured number of topics is reached.
        TooManyTopics = 8,
    }
);

codes!(
    /// Whether publishers are held back, and why.
    Held: u8 {
        /// Flowing.
        No = 0,
        /// Waiting for the disk.
        Busy = 1,
        /// No prepared journal space is left.
        NoSpace = 2,
    }
);

codes!(
    /// Where a subscription starts.
    From: u8 {
        /// The next record released.
        Live = 1,
        /// The first in the journal.
        Earliest = 2,
        /// A seq.
        Seq = 3,
        /// A receive time.
        Time = 4,
    }
);

codes!(
    /// When a message may be acknowledged and forwarded.
    Policy: u8 {
        /// On stable storage of the one node.
        Local = 1,
        /// In memory of every in-sync node.
        Mirrored = 2,
        /// On stable storage of every in-sync node.
        Durable = 3,
    }
);

codes!(
    /// Kinds of frame between a witness and its clients.
    WitnessKind: u8 {
        /// The witness's nonce.
        Challenge = 1,
        /// Who is there, with proof.
        Logon = 2,
        /// The witness's own proof.
        Welcome = 3,
        /// The end of the connection.
        Terminate = 4,
        /// Asks for the registers of a stream.
        Read = 16,
        /// Replaces the record.
        Swap = 17,
        /// Replaces the floor.
        Floor = 18,
        /// Makes the first record.
        Create = 19,
        /// Asks how the witness is.
        Status = 20,
        /// The registers read.
        Registers = 32,
        /// It happened.
        Done = 33,
        /// It did not happen; the registers as they are.
        Refused = 34,
        /// No place for another stream.
        NoRoom = 35,
        /// How the witness is.
        StatusReport = 36,
    }
);

codes!(
    /// Why a witness ends a connection.
    WitnessCode: u16 {
        /// A frame that is malformed or not allowed here.
        Protocol = 1,
        /// A checksum that does not fit.
        Checksum = 2,
        /// A protocol version not spoken.
        Version = 3,
        /// A proof that does not hold.
        Authentication = 4,
        /// No logon, or no whole frame, within the time for it.
        TooSlow = 5,
        /// Nothing asked for too long.
        Silent = 6,
        /// No place for another connection.
        Full = 7,
        /// The witness is being stopped.
        Stopping = 8,
        /// The witness's disk failed.
        StorageFault = 9,
    }
);
