//! Where a record is kept. Workers, keys and sub-tenants have slots of different types, so that none can be taken for another.

/// The number of a place in a [`Slab`](crate::slab::Slab). It is used again for another record of the same kind.
pub trait Slot: Copy {
    /// The slot at this position of its slab.
    fn new(position: u32) -> Self;
    /// Its position in its slab.
    fn position(self) -> usize;
}

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl Slot for $name {
            fn new(position: u32) -> Self {
                Self(position)
            }

            fn position(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

slots! {
    /// A worker, a cell, or one of them that is being removed. Called `w` in the code of the pool.
    WorkerSlot
    /// A [`KeyRecord`](crate::records::KeyRecord). Called `k` in the code of the pool.
    KeySlot
    /// A [`SubTenantRecord`](crate::records::SubTenantRecord). Called `s` in the code of the pool.
    SubTenantSlot
}
