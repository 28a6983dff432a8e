//! Histories in which a rule was broken once. They are run always.

/// Seed and calls of each, and what it showed.
pub const ONCE_FAILED: &[(u64, u64, &str)] = &[
    (16294208416658607535, 60, "a cell is labelled for a sub-tenant that may have no worker"),
    (0, 500, "next wake-up in the past from a drain's deadline to its end"),
    (10905525725756348110, 600, "the first call of a sub-tenant that may have none is accepted"),
    (1, 300, "places of workers that a drain ended are left empty until the next event"),
    (2092789425003139053, 60, "a labelled cell is too old for its first call"),
    (12847895688012758659, 60, "a key that has just begun to back off makes one more worker"),
    (489503802456916415, 600, "a call that came back waits beside an idle worker of its key"),
    (5282582839004288342, 600, "an idle worker too old to serve lets a call past the bound of the queue"),
    (307402330858154795, 200, "a forgotten key leaves others of its sub-tenant blocked"),
    (12141806769257945189, 600, "a lowered calls_max leaves spent workers idle"),
    (17509796270354685193, 60, "a worker whose calls ended as it came free is idle for ever"),
    (4813311447759758803, 200, "a worker frozen behind one kept beyond its time is ended late"),
    (986765254964468902, 2000, "failures of long ago hold a key that is in use to one trial"),
];

/// Seed and length of histories on which the pool and the model differed once, and why.
pub const MODEL_ONCE_DIFFERED: &[(u64, usize, &str)] = &[];
