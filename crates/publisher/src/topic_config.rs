//! Setting keys of a topic's configuration, and no others.
//!
//! Kafka has an older request as well, which sets the whole configuration: what it does not name goes back to the broker's default. It is the
//! only one that rdkafka has, so that this one is asked of librdkafka itself.

use std::{ffi::CString, ptr, time::Duration};

use rdkafka::{bindings as native, error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::{
    error::PublishError,
    native::{Owned, milliseconds, owned_text},
    topics::TopicAdmin,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the answer is waited for: librdkafka gives one in any case once its own time is over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const DOING: &str = "setting a topic's configuration";

impl TopicAdmin {
    /// Sets these keys of the topic's configuration, and leaves all others as they are.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it, or refuse a value.
    pub fn configure(&self, topic: &str, config: &[(&str, &str)]) -> Result<(), PublishError> {
        let refused = |code: Code, reason: Option<String>| PublishError::Kafka {
            doing: DOING,
            error: KafkaError::AdminOp(code),
            reason: Some(reason.unwrap_or_else(|| topic.to_owned())),
        };
        let client = self.native()?;
        let text = |text: &str| CString::new(text).map_err(|error| PublishError::kafka(DOING)(error.into()));
        let name = text(topic)?;
        // SAFETY: the client outlives this function, which borrows what owns it. Each pointer comes from the function that makes it, is not null
        // (`Owned::new`), and is given back once, by `Owned`. Strings are copied by librdkafka. The event owns the result and its resources, and
        // is alive while they are read.
        unsafe {
            let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
            let none = || refused(Code::Fail, None);
            let options = native::rd_kafka_AdminOptions_new(client, operation);
            let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy).ok_or_else(none)?;
            let timeout = milliseconds(REQUEST_TIMEOUT);
            let code = native::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout, ptr::null_mut(), 0);
            if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(refused(code.into(), None));
            }
            let kind = native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
            let resource = native::rd_kafka_ConfigResource_new(kind, name.as_ptr());
            let resource = Owned::new(resource, native::rd_kafka_ConfigResource_destroy).ok_or_else(none)?;
            for (key, value) in config {
                let (key, value) = (text(key)?, text(value)?);
                let set = native::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
                let error = native::rd_kafka_ConfigResource_add_incremental_config(
                    resource.get(),
                    key.as_ptr(),
                    set,
                    value.as_ptr(),
                );
                if let Some(error) = Owned::new(error, native::rd_kafka_error_destroy) {
                    return Err(refused(native::rd_kafka_error_code(error.get()).into(), None));
                }
            }
            let queue =
                Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy).ok_or_else(none)?;
            let mut resources = [resource.get()];
            native::rd_kafka_IncrementalAlterConfigs(client, resources.as_mut_ptr(), 1, options.get(), queue.get());
            let event = native::rd_kafka_queue_poll(queue.get(), milliseconds(ANSWER_TIMEOUT));
            let late = || refused(Code::OperationTimedOut, None);
            let event = Owned::new(event, native::rd_kafka_event_destroy).ok_or_else(late)?;
            let code = native::rd_kafka_event_error(event.get());
            if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(refused(code.into(), owned_text(native::rd_kafka_event_error_string(event.get()))));
            }
            let result = native::rd_kafka_event_IncrementalAlterConfigs_result(event.get());
            let mut count = 0;
            let answers = if result.is_null() {
                ptr::null_mut()
            } else {
                native::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count)
            };
            if answers.is_null() || count != 1 {
                return Err(PublishError::Topic {
                    topic: topic.to_owned(),
                    problem: "the broker answered the change of its configuration with nothing".into(),
                });
            }
            let answer = *answers;
            match native::rd_kafka_ConfigResource_error(answer) {
                native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                code => Err(refused(code.into(), owned_text(native::rd_kafka_ConfigResource_error_string(answer)))),
            }
        }
    }
}
