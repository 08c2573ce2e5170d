//! What fails, and how it looks to the wrapper.

use nvml_wrapper::{
    enum_wrappers::device::TemperatureSensor, error::NvmlError, struct_wrappers::device::FieldValueSample,
    structs::device::FieldId,
};

use crate::{machine::Machine, readings::FIELDS};

#[test]
fn a_lost_card_fails_every_call() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set_card(|gpu| gpu.lost = true);
    assert!(matches!(card.memory_info(), Err(NvmlError::GpuLost)));
    assert!(matches!(card.field_values_for(&FIELDS), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(0), Err(NvmlError::GpuLost)));
    machine.set_card(|gpu| gpu.lost = false);
    assert!(card.memory_info().is_ok());
    Ok(())
}

#[test]
fn a_loss_can_hide_inside_fields_of_a_call_that_succeeds() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set_card(|gpu| gpu.lost_inside_fields = true);
    let fields = card.field_values_for(&FIELDS)?;
    assert_eq!(fields.len(), FIELDS.len());
    assert!(fields.into_iter().all(|field| matches!(inner(field), Err(NvmlError::GpuLost))));
    assert!(card.memory_info().is_ok(), "only the fields say so");
    machine.set_card(|gpu| gpu.lost = true);
    assert!(card.field_values_for(&FIELDS).is_ok(), "and they go on when everything says so");
    assert!(matches!(card.memory_info(), Err(NvmlError::GpuLost)));
    Ok(())
}

#[test]
fn an_unknown_field_and_a_failing_one_leave_the_others_alone() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set_card(|gpu| {
        gpu.field_errors.insert(230, 4);
    });
    let fields = [FieldId(9999), FieldId(230), FieldId(142)];
    let read: Vec<_> = card.field_values_for(&fields)?.into_iter().map(inner).collect();
    assert!(matches!(read[0], Err(NvmlError::NotSupported)));
    assert!(matches!(read[1], Err(NvmlError::NoPermission)));
    assert!(read[2].is_ok());
    Ok(())
}

#[test]
fn symbols_fail_as_the_card_or_the_machine_says() -> Result<(), NvmlError> {
    let machine = Machine::new();
    let nvml = machine.load();
    let card = nvml.device_by_index(0)?;
    machine.set(|scenario| {
        scenario.gpus[0].unsupported.push("nvmlDeviceGetNumFans".into());
        scenario.gpus[0].fail("nvmlDeviceGetTemperature", 29);
        scenario.errors.insert("nvmlEventSetCreate".into(), 3);
    });
    assert!(matches!(card.num_fans(), Err(NvmlError::NotSupported)));
    assert!(matches!(card.temperature(TemperatureSensor::Gpu), Err(NvmlError::UnexpectedVariant(29))));
    assert!(matches!(nvml.create_event_set(), Err(NvmlError::NotSupported)));
    assert!(card.memory_info().is_ok());
    Ok(())
}

#[test]
fn initialisation_fails_as_scripted() {
    let machine = Machine::new();
    machine.set(|scenario| scenario.init_error = 18);
    assert!(matches!(machine.try_load(), Err(NvmlError::LibRmVersionMismatch)));
    machine.set(|scenario| scenario.init_error = 0);
    assert!(machine.try_load().is_ok());
}

#[test]
fn a_typo_in_the_scenario_is_an_error() {
    let machine = Machine::new();
    machine.write_text(r#"{"gpus": [{"temprature": 99}]}"#);
    assert!(matches!(machine.try_load(), Err(NvmlError::Unknown)));
    machine.write_text(r#"{"gpus": [{"temperature": 99, "field_errors": {"230": 3}, "xids": [{"sequence": 1, "xid": 79}]}]}"#);
    let nvml = machine.load();
    let card = nvml.device_by_index(0).expect("there is one");
    assert!(matches!(card.temperature(TemperatureSensor::Gpu), Ok(99)));
}

fn inner(field: Result<FieldValueSample, NvmlError>) -> Result<(), NvmlError> {
    field?.value.map(drop)
}
