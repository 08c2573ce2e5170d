//! What is left of a prompt that ran: its history entry, and the jobs that are told from entries and queue.

use serde_json::{Map, Value, json};

use super::queue::{ComfyPrompt, ComfyState};

/// The real server keeps this many.
const LIMIT: usize = 10_000;

/// One prompt that ran.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) value: Value,
}

/// What there is to say of a job.
#[derive(Debug)]
pub(super) enum JobLookup {
    Found(Value),
    /// Its workflow is null, on which the real server stumbles.
    Unreadable,
    Unknown,
}

impl ComfyState {
    /// Writes the entry. A later run of the same id overwrites it in place.
    pub(super) fn record(
        &mut self,
        item: &ComfyPrompt,
        outputs: &Map<String, Value>,
        messages: &[(String, Value)],
    ) {
        let is_success = messages.iter().any(|(event, _)| event == "execution_success");
        let meta: Map<String, Value> = outputs
            .keys()
            .map(|node| {
                let about =
                    json!({"node_id": node, "display_node": node, "parent_node": null, "real_node_id": node});
                (node.clone(), about)
            })
            .collect();
        let value = json!({
            "prompt": item.listed(),
            "outputs": outputs,
            "status": {"status_str": if is_success { "success" } else { "error" }, "completed": is_success,
                "messages": messages},
            "meta": meta,
        });
        let entry = Entry { id: item.prompt_id.clone(), value };
        match self.history.iter_mut().find(|old| old.id == entry.id) {
            Some(old) => *old = entry,
            None => self.history.push(entry),
        }
        if self.history.len() > LIMIT {
            self.history.remove(0);
        }
    }

    /// `/history` as text, because its order counts: oldest first. Without an offset the newest are kept.
    pub(super) fn history_text(&self, max_items: Option<usize>, offset: Option<usize>) -> String {
        let count = max_items.unwrap_or(self.history.len());
        let skip = offset.unwrap_or_else(|| self.history.len().saturating_sub(count));
        let entries = self.history.iter().skip(skip).take(count);
        let members: Vec<String> =
            entries.map(|entry| format!("{}:{}", json!(entry.id), entry.value)).collect();
        format!("{{{}}}", members.join(","))
    }

    /// Every job as the list shows it, newest first. None while a workflow is null, which the real one cannot list.
    pub(super) fn jobs(&self) -> Option<Vec<Value>> {
        let queued = self.heap.indices().chain(self.running);
        let mut jobs: Vec<Value> = queued.map(|index| self.queued_job(&self.items[index])).collect();
        for entry in &self.history {
            jobs.push(self.finished_job(&entry.value)?);
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job["create_time"].as_u64()));
        Some(jobs)
    }

    /// One job in full.
    pub(super) fn job(&self, id: &str) -> JobLookup {
        let queued = self.heap.indices().chain(self.running).find(|index| self.items[*index].prompt_id == id);
        if let Some(index) = queued {
            return JobLookup::Found(self.queued_job(&self.items[index]));
        }
        let entry = self.history.iter().find(|entry| entry.id == id);
        let Some(Entry { value: entry, .. }) = entry else { return JobLookup::Unknown };
        let Some(mut job) = self.finished_job(entry) else { return JobLookup::Unreadable };
        job["outputs"] = entry["outputs"].clone();
        job["execution_status"] = entry["status"].clone();
        job["workflow"] = json!({"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]});
        JobLookup::Found(job)
    }

    fn queued_job(&self, item: &ComfyPrompt) -> Value {
        let status = if self.runs(&item.prompt_id) { "in_progress" } else { "pending" };
        let mut job = json!({"id": item.prompt_id, "status": status, "priority": item.number,
            "create_time": item.extra_data["create_time"], "outputs_count": 0, "previewable_outputs_count": 0});
        if let Some(id) = item.extra_data["extra_pnginfo"]["workflow"].get("id") {
            job["workflow_id"] = id.clone();
        }
        job
    }

    fn finished_job(&self, entry: &Value) -> Option<Value> {
        let workflow = entry["prompt"][3]["extra_pnginfo"].get("workflow");
        if workflow.is_some_and(Value::is_null) {
            return None;
        }
        let messages = entry["status"]["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let last = messages.last()?;
        let status = match last[0].as_str() {
            Some("execution_success") => "completed",
            Some("execution_interrupted") if self.is_after(0, 8, 2) => "cancelled",
            _ => "failed",
        };
        let pictures: Vec<(&String, &Value)> = entry["outputs"]
            .as_object()?
            .iter()
            .flat_map(|(node, shown)| {
                shown["images"].as_array().into_iter().flatten().map(move |one| (node, one))
            })
            .collect();
        let mut job = json!({"id": entry["prompt"][1], "status": status, "priority": entry["prompt"][0],
            "create_time": entry["prompt"][3]["create_time"], "execution_start_time": messages[0][1]["timestamp"],
            "execution_end_time": last[1]["timestamp"], "outputs_count": pictures.len(),
            "previewable_outputs_count": pictures.len()});
        if status == "failed" {
            job["execution_error"] = last[1].clone();
        }
        if let Some((node, picture)) = pictures.first() {
            job["preview_output"] = (*picture).clone();
            job["preview_output"]["nodeId"] = json!(node);
            job["preview_output"]["mediaType"] = json!("images");
        }
        if let Some(id) = workflow.and_then(|workflow| workflow.get("id")) {
            job["workflow_id"] = id.clone();
        }
        Some(job)
    }
}
