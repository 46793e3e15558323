//! Who is told of the errors that librdkafka reports, by their codes.

use std::{ffi::CStr, fmt, sync::Arc};

use rdkafka::{
    bindings::rd_kafka_err2name,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

/// Where an error was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// By a client as a whole: librdkafka's error callback. It tries again by itself.
    ByClient,
    /// For a record that was not delivered.
    ForRecord,
    /// For a step of a transaction.
    ForTransaction,
}

type Observe = dyn Fn(Reported, &str) + Send + Sync;

/// Is told of each error with the name that librdkafka has for its code, such as `_TRANSPORT` or `NOT_LEADER_FOR_PARTITION`. By default nobody is.
#[derive(Clone, Default)]
pub struct ErrorObserver(Option<Arc<Observe>>);

impl ErrorObserver {
    /// Tells this function, on whichever thread the error is reported. It must not block.
    pub fn new(observe: impl Fn(Reported, &str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    pub(crate) fn tell(&self, reported: Reported, error: &KafkaError) {
        if let (Some(observe), Some(code)) = (&self.0, error.rdkafka_error_code()) {
            observe(reported, &name(code));
        }
    }
}

impl fmt::Debug for ErrorObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ErrorObserver(..)" } else { "ErrorObserver(nobody)" })
    }
}

/// The name of a code in librdkafka's own list. It does not grow with what a broker says: a number that is not in the list has one name for all.
pub(crate) fn name(code: RDKafkaErrorCode) -> String {
    let Some(code) = RDKafkaRespErr::try_from(code as i32).ok().filter(|_| code != RDKafkaErrorCode::Unknown) else {
        return "UNKNOWN".to_owned();
    };
    // SAFETY: it takes any value of the enumeration, and returns a text that ends with a null byte and lives as long as the library.
    let name = unsafe { rd_kafka_err2name(code) };
    if name.is_null() {
        return "UNKNOWN".to_owned();
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_code_has_the_name_that_librdkafka_has() {
        let told: Arc<Mutex<Vec<(Reported, String)>>> = Arc::default();
        let observer = ErrorObserver::new({
            let told = Arc::clone(&told);
            move |reported, code| told.lock().expect("whole").push((reported, code.to_owned()))
        });
        observer.tell(Reported::ByClient, &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure));
        observer.tell(Reported::ForRecord, &KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge));
        observer.tell(Reported::ForTransaction, &KafkaError::Flush(RDKafkaErrorCode::InvalidProducerEpoch));
        // It has none.
        observer.tell(Reported::ByClient, &KafkaError::Nul(std::ffi::CString::new(vec![0]).expect_err("a zero")));
        ErrorObserver::default().tell(Reported::ByClient, &KafkaError::Global(RDKafkaErrorCode::Fail));
        let expected = [
            (Reported::ByClient, "_TRANSPORT"),
            (Reported::ForRecord, "MSG_SIZE_TOO_LARGE"),
            (Reported::ForTransaction, "INVALID_PRODUCER_EPOCH"),
        ];
        let told = told.lock().expect("whole").clone();
        assert_eq!(told, expected.map(|(reported, code)| (reported, code.to_owned())));
        assert_eq!(name(RDKafkaErrorCode::Unknown), "UNKNOWN");
    }
}
