//! What has no symbol of its own, only a number: each field has its own return code, beside that of the call.

use std::{
    ffi::c_int,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Gpu,
    call::{
        Code, GPU_IS_LOST, Handle, INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, gpu_for_handle, may_answer,
        system,
    },
};

const MEMORY_TEMPERATURE: u32 = 82;
const POWER_AVERAGE: u32 = 185;
const POWER_INSTANT: u32 = 186;
const REMAPPED_CORRECTABLE: u32 = 142;
const REMAPPED_UNCORRECTABLE: u32 = 143;
const REMAPPED_PENDING: u32 = 144;
const REMAPPED_FAILURE: u32 = 145;
const RECOVERY_ACTION: u32 = 230;

/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: u32 = 1;

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Field {
    id: u32,
    scope: u32,
    timestamp: i64,
    latency: i64,
    value_type: u32,
    code: Code,
    /// A union of numbers, the longest of 64 bits; little-endian, so that a shorter one has the same bytes.
    value: u64,
}

const _: () = assert!(size_of::<Field>() == 40 && cfg!(target_endian = "little"));

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(gpu: Handle, count: c_int, fields: *mut Field) -> Code {
    let symbol = "nvmlDeviceGetFieldValues";
    system(symbol, |scenario| {
        let gpu = gpu_for_handle(scenario, gpu)?;
        if !gpu.lost_inside_fields {
            may_answer(symbol, gpu)?;
        }
        let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(INVALID_ARGUMENT)?;
        if fields.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so as many as the client says.
        for field in unsafe { std::slice::from_raw_parts_mut(fields, count) } {
            fill(field, gpu);
        }
        Ok(())
    })
}

fn fill(field: &mut Field, gpu: &Gpu) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    field.timestamp = i64::try_from(now).unwrap_or(i64::MAX);
    field.latency = 0;
    match value_of(field.id, gpu) {
        Ok(value) => {
            (field.code, field.value_type, field.value) = (SUCCESS, UNSIGNED_INT, value.into());
        }
        Err(code) => field.code = code,
    }
}

fn value_of(id: u32, gpu: &Gpu) -> Result<u32, Code> {
    if gpu.lost_inside_fields {
        return Err(GPU_IS_LOST);
    }
    if let Some(code) = gpu.field_errors.get(&id) {
        return Err(*code);
    }
    let rows = gpu.remapped_rows;
    match id {
        MEMORY_TEMPERATURE => gpu.memory_temperature.ok_or(NOT_SUPPORTED),
        POWER_AVERAGE | POWER_INSTANT => Ok(gpu.power_draw_mw),
        REMAPPED_CORRECTABLE => Ok(rows.correctable),
        REMAPPED_UNCORRECTABLE => Ok(rows.uncorrectable),
        REMAPPED_PENDING => Ok(rows.pending.into()),
        REMAPPED_FAILURE => Ok(rows.failure.into()),
        RECOVERY_ACTION => Ok(gpu.recovery_action),
        _ => Err(NOT_SUPPORTED),
    }
}
