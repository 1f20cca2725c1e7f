//! The tests' own ground: memory of every machine.

use crate::common::for_each_machine;

#[test]
fn memory_comes_back_as_it_was_written() {
    for_each_machine(|machine| {
        let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
        let buffer = machine.upload(&numbers);
        assert_eq!((buffer.pointer() as usize % 256, buffer.len()), (0, 1000));
        assert_eq!(machine.download(&buffer), numbers);
        machine.write(&buffer, &vec![1.5; 1000]);
        assert_eq!(machine.download(&buffer), vec![1.5; 1000]);
        assert_eq!(machine.download(&machine.filled::<u16>(3, 0xab)), [0xabab; 3]);
        assert_eq!(machine.download(&machine.upload::<u32>(&[])), [0_u32; 0]);
    });
}
