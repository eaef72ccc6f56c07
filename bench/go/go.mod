module gmprt.bench/peer

go 1.22
