;; Wants 256 MiB.
(component
  (core module $code
    (memory 1)
    (func (export "price") (param i32) (result i32) (memory.grow (i32.const 4096))))
  (core instance $i (instantiate $code))
  (func (export "price") (param "cents" u32) (result u32) (canon lift (core func $i "price"))))
