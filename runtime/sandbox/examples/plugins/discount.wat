;; A tenth off.
(component
  (core module $code
    (func (export "price") (param i32) (result i32)
      (i32.sub (local.get 0) (i32.div_u (local.get 0) (i32.const 10)))))
  (core instance $i (instantiate $code))
  (func (export "price") (param "cents" u32) (result u32) (canon lift (core func $i "price"))))
