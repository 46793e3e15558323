//! A client of the Confluent schema registry API over HTTP and HTTPS; and, in [`store`], a registry's state and rules without I/O, for
//! whoever wants to be one.
//!
//! # The client
//!
//! It speaks the subset that a producer of Avro needs, as the [API reference] has it, and as Confluent's registry, Karapace and
//! Apicurio (under `/apis/ccompat/v7`) serve it: register, look up, read back, check compatibility, ask for compatibility levels.
//!
//! A registration is idempotent, and an id never changes its schema. So ids are cached by subject and schema text without any expiry,
//! a request whose answer was lost is simply sent again, and callers that ask for the same registration at once share one request.
//!
//! Nothing that a registry sends is trusted in length or form: answers are read up to a limit, redirects are followed only within the
//! same origin and only where they keep the method, and every request has a deadline. What failed is told by [`RegistryError`], whose
//! [`action`](RegistryError::action) is all that a caller has to branch on. The client itself never retries: how long to wait, and
//! whether to go on at all, is the caller's decision.
//!
//! [API reference]: https://docs.confluent.io/platform/current/schema-registry/develop/api.html

mod cache;
mod client;
mod error;
mod options;
pub mod store;
mod transport;

pub use client::{Compatibility, CompatibilityLevel, RegistryClient, SchemaId};
pub use error::{Action, ErrorKind, RegistryError};
pub use options::{Auth, RegistryOptions};
pub use url::Url;
