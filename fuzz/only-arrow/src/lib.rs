//! As much of `datafusion` as the tolerant reader names: Arrow's arrays and types. So it can be
//! fuzzed without building a query engine under sanitizers.

pub mod arrow {
    pub use arrow_schema as datatypes;

    pub mod array {
        pub use arrow_array::{ArrayRef, RecordBatch, builder::*};
    }
}
