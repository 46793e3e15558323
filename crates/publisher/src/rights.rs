//! What the brokers would let this client do with topics, by their own word (KIP-430), so that nothing has to be tried.
//!
//! Of a transactional id there is no such word: it can only be used, which would fence whoever has it.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

use rdkafka::{bindings as native, error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::{
    error::PublishError,
    native::{Owned, milliseconds, owned_text},
    probe::{ClusterProbe, TOPICS_PER_REQUEST},
};

const DOING: &str = "asking for the rights on topics";
/// librdkafka gives an answer once its own time is over.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// What a client may do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicRights {
    /// READ
    pub may_read: bool,
    /// WRITE
    pub may_write: bool,
}

impl ClusterProbe {
    /// The rights on topics, by name. Those are left out that are not there, and all where the brokers do not tell.
    ///
    /// # Errors
    /// The brokers cannot be reached.
    pub fn topic_rights(&self, topics: &[&str]) -> Result<BTreeMap<String, TopicRights>, PublishError> {
        let mut rights = BTreeMap::new();
        for topics in topics.chunks(TOPICS_PER_REQUEST) {
            rights.extend(self.rights_of(topics)?);
        }
        Ok(rights)
    }

    fn rights_of(&self, topics: &[&str]) -> Result<BTreeMap<String, TopicRights>, PublishError> {
        let refused = |code: Code| self.failure(DOING, KafkaError::AdminOp(code));
        let names: Result<Vec<CString>, _> = topics.iter().map(|topic| CString::new(*topic)).collect();
        let names = names.map_err(|error| PublishError::kafka(DOING)(error.into()))?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let client = self.admin.inner().native_ptr();
        let mut rights = BTreeMap::new();
        // SAFETY: the client outlives this function, which borrows what owns it. Each pointer comes from the function that makes it, is not null
        // (`Owned::new`), and is given back once, by `Owned`. Names are copied by librdkafka, and alive until then. The event owns the result, its
        // topics and what is known of each, and is alive while they are read; each list is as long as its count says. An operation is read as the
        // number that it is in C.
        unsafe {
            let none = || refused(Code::Fail);
            let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = native::rd_kafka_AdminOptions_new(client, operation);
            let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy).ok_or_else(none)?;
            let timeout = milliseconds(self.timeout);
            let code = native::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout, ptr::null_mut(), 0);
            if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(refused(code.into()));
            }
            let error = native::rd_kafka_AdminOptions_set_include_authorized_operations(options.get(), 1);
            if let Some(error) = Owned::new(error, native::rd_kafka_error_destroy) {
                return Err(refused(native::rd_kafka_error_code(error.get()).into()));
            }
            let wanted = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let wanted = Owned::new(wanted, native::rd_kafka_TopicCollection_destroy).ok_or_else(none)?;
            let queue =
                Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy).ok_or_else(none)?;
            native::rd_kafka_DescribeTopics(client, wanted.get(), options.get(), queue.get());
            let event = native::rd_kafka_queue_poll(queue.get(), milliseconds(self.timeout + ANSWER_MARGIN));
            let late = || refused(Code::OperationTimedOut);
            let event = Owned::new(event, native::rd_kafka_event_destroy).ok_or_else(late)?;
            let code = native::rd_kafka_event_error(event.get());
            if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                tracing::debug!(said = owned_text(native::rd_kafka_event_error_string(event.get())), "{DOING}");
                return Err(refused(code.into()));
            }
            let result = native::rd_kafka_event_DescribeTopics_result(event.get());
            if result.is_null() {
                return Err(none());
            }
            let mut count = 0;
            let described = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for index in 0..if described.is_null() { 0 } else { count } {
                let topic = *described.add(index);
                let error = native::rd_kafka_TopicDescription_error(topic);
                if !error.is_null()
                    && native::rd_kafka_error_code(error) != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                {
                    continue;
                }
                let mut count = 0;
                let operations = native::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
                let name = native::rd_kafka_TopicDescription_name(topic);
                if operations.is_null() || name.is_null() {
                    continue;
                }
                let operations = std::slice::from_raw_parts(operations.cast::<u32>(), count);
                let may = |operation: native::rd_kafka_AclOperation_t| operations.contains(&(operation as u32));
                let of_topic = TopicRights {
                    may_read: may(native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ),
                    may_write: may(native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
                };
                rights.insert(CStr::from_ptr(name).to_string_lossy().into_owned(), of_topic);
            }
        }
        Ok(rights)
    }
}
