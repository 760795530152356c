//! JSON schemas of the types of bodies and parameters.

use serde_json::Value;

/// Merges the schema of an inlined type with what is said of it where it is used.
///
/// utoipa makes an `allOf` of both.
pub(crate) fn merge_inlined(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(merge_inlined);
            if let Some(Value::Array(parts)) = members.get("allOf")
                && parts.iter().all(|part| part.get("$ref").is_none())
            {
                let parts = parts.clone();
                members.remove("allOf");
                for part in parts.iter().filter_map(Value::as_object) {
                    for (name, value) in part {
                        // The second part is said to be an object, whatever the first one is.
                        if name != "type" || !members.contains_key(name) {
                            members.insert(name.clone(), value.clone());
                        }
                    }
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(merge_inlined),
        _ => {}
    }
}
