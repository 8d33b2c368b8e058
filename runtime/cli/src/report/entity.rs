//! How an entity is shown.

use mainspring_proto::EntityMetadata;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::table;

pub const HEADINGS: [&str; 4] = ["ENTITY", "MODIFIED", "BACKLOG", "LOCKED BY"];

/// The same, for lists that show states.
pub const HEADINGS_WITH_STATE: [&str; 5] = ["ENTITY", "MODIFIED", "BACKLOG", "LOCKED BY", "STATE"];

/// One line of a list. The time has no fraction: lists are read by people.
pub fn to_row(entity: &EntityMetadata) -> [String; 4] {
    let modified = entity.last_modified_time.map(|time| Timestamp {
        seconds: time.seconds,
        nanos: 0,
    });
    [
        entity.instance_id.clone(),
        modified.map_or_else(String::new, |time| time.to_string()),
        entity.backlog_queue_size.to_string(),
        entity.locked_by.clone().unwrap_or_default(),
    ]
}

/// One line of a list that shows states.
pub fn to_row_with_state(entity: &EntityMetadata) -> [String; 5] {
    let [id, modified, backlog, locked_by] = to_row(entity);
    let state = entity.serialized_state.clone().unwrap_or_default();
    [id, modified, backlog, locked_by, state]
}

/// Everything that is set, one field a line.
pub fn print(entity: &EntityMetadata) {
    let mut fields = vec![("entity", entity.instance_id.clone())];
    let modified = entity.last_modified_time.map(|time| time.to_string());
    fields.extend(modified.map(|time| ("modified", time)));
    fields.push(("backlog", entity.backlog_queue_size.to_string()));
    let texts = [
        ("locked by", &entity.locked_by),
        ("state", &entity.serialized_state),
    ];
    for (name, text) in texts {
        fields.extend(text.clone().map(|text| (name, text)));
    }
    table::print_fields(&fields);
}

/// Everything that is set, under the protocol's names.
pub fn to_json(entity: &EntityMetadata) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("instanceId", json!(entity.instance_id));
    if let Some(time) = entity.last_modified_time {
        set("lastModifiedTime", json!(time.to_string()));
    }
    set("backlogQueueSize", json!(entity.backlog_queue_size));
    if let Some(holder) = &entity.locked_by {
        set("lockedBy", json!(holder));
    }
    if let Some(state) = &entity.serialized_state {
        set("serializedState", json!(state));
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn locked() -> EntityMetadata {
        EntityMetadata {
            instance_id: "@counter@a".to_owned(),
            last_modified_time: Some("2030-01-31T12:00:00.5Z".parse().unwrap()),
            backlog_queue_size: 3,
            locked_by: Some("order-17".to_owned()),
            serialized_state: Some(String::new()),
        }
    }

    /// S-12.6: an empty state is a state.
    #[test]
    fn json_holds_what_is_set_and_tells_an_empty_state_from_none() {
        let json = to_json(&locked());
        assert_eq!(json["instanceId"], "@counter@a");
        assert_eq!(json["lastModifiedTime"], "2030-01-31T12:00:00.500Z");
        assert_eq!(json["backlogQueueSize"], 3);
        assert_eq!(json["lockedBy"], "order-17");
        assert_eq!(json["serializedState"], "");
        let json = to_json(&EntityMetadata::default());
        assert_eq!(json.get("lockedBy"), None);
        assert_eq!(json.get("serializedState"), None);
    }

    #[test]
    fn a_row_shows_whole_seconds_and_the_state_only_where_it_is_asked_for() {
        let row = ["@counter@a", "2030-01-31T12:00:00Z", "3", "order-17"];
        assert_eq!(to_row(&locked()), row);
        let entity = EntityMetadata {
            locked_by: None,
            serialized_state: Some("17".to_owned()),
            ..locked()
        };
        let row = ["@counter@a", "2030-01-31T12:00:00Z", "3", "", "17"];
        assert_eq!(to_row_with_state(&entity), row);
    }
}
