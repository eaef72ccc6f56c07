/* vfork.S (arm64) - the hook on vfork: notes that it happens, and goes on to the real one.
 *
 * vfork returns twice through the same return address, so nothing of ours may lie on the stack when it is
 * entered: it is jumped to. */
    .text
    .p2align 4
    .globl hook_vfork
    .hidden hook_vfork
    .type hook_vfork, %function
hook_vfork:
    .cfi_startproc
    hint 34                     /* bti c */
    stp x29, x30, [sp, #-16]!
    .cfi_adjust_cfa_offset 16
    bl hook_vfork_note
    bl hook_vfork_real
    ldp x29, x30, [sp], #16
    .cfi_adjust_cfa_offset -16
    mov x16, x0
    br x16
    .cfi_endproc
    .size hook_vfork, .-hook_vfork

    .section .note.GNU-stack,"",%progbits
