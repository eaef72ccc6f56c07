/* vfork.S (amd64) - the hook on vfork: notes that it happens, and goes on to the real one.
 *
 * vfork returns twice through the same return address, so nothing of ours may lie on the stack when it is
 * entered: it is jumped to. */
    .text
    .p2align 4
    .globl hook_vfork
    .hidden hook_vfork
    .type hook_vfork, @function
hook_vfork:
    .cfi_startproc
    endbr64
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    call hook_vfork_note
    call hook_vfork_real
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    jmpq *%rax
    .cfi_endproc
    .size hook_vfork, .-hook_vfork

    .section .note.GNU-stack,"",@progbits
