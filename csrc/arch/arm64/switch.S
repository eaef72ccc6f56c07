/* switch.S (arm64) - leave one stack, enter another.  Contract in arch/arch.h.
 *
 * Saved frame, from the saved sp upwards: d8-d15, x19-x28, x29, x30, fpcr, pad (176 bytes).
 * The jump goes through x4, not `ret`, for the same reason as on amd64. */
    .text
    .p2align 4
    .globl gm_switch
    .hidden gm_switch
    .type gm_switch, %function
gm_switch:
    .cfi_startproc
    hint 34                     /* bti c */
    sub sp, sp, #176
    .cfi_adjust_cfa_offset 176
    stp d8, d9, [sp, #0]
    stp d10, d11, [sp, #16]
    stp d12, d13, [sp, #32]
    stp d14, d15, [sp, #48]
    stp x19, x20, [sp, #64]
    .cfi_rel_offset x19, 64
    .cfi_rel_offset x20, 72
    stp x21, x22, [sp, #80]
    .cfi_rel_offset x21, 80
    .cfi_rel_offset x22, 88
    stp x23, x24, [sp, #96]
    .cfi_rel_offset x23, 96
    .cfi_rel_offset x24, 104
    stp x25, x26, [sp, #112]
    .cfi_rel_offset x25, 112
    .cfi_rel_offset x26, 120
    stp x27, x28, [sp, #128]
    .cfi_rel_offset x27, 128
    .cfi_rel_offset x28, 136
    stp x29, x30, [sp, #144]
    .cfi_rel_offset x29, 144
    .cfi_rel_offset x30, 152
    mrs x9, fpcr
    str x9, [sp, #160]
    mov x10, sp
    str x10, [x0]
    mov sp, x1
    ldr x10, [sp, #160]
    cmp x9, x10
    b.eq 1f
    msr fpcr, x10
1:  ldp d8, d9, [sp, #0]
    ldp d10, d11, [sp, #16]
    ldp d12, d13, [sp, #32]
    ldp d14, d15, [sp, #48]
    ldp x19, x20, [sp, #64]
    ldp x21, x22, [sp, #80]
    ldp x23, x24, [sp, #96]
    ldp x25, x26, [sp, #112]
    ldp x27, x28, [sp, #128]
    ldp x29, x30, [sp, #144]
    mov x4, x30
    add sp, sp, #176
    .cfi_adjust_cfa_offset -176
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    br x4
    .cfi_endproc
    .size gm_switch, .-gm_switch

    .p2align 4
    .globl gm_entry
    .hidden gm_entry
    .type gm_entry, %function
gm_entry:
    .cfi_startproc
    .cfi_undefined x30          /* the outermost frame: unwinders stop here */
    hint 36                     /* bti j */
    mov x0, x19
    blr x20
    brk #1                      /* it never returns */
    .cfi_endproc
    .size gm_entry, .-gm_entry

    .section .note.GNU-stack,"",%progbits
