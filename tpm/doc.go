// Package tpm is the backend for TPM 2.0 chips, over google/go-tpm's direct API.
//
// Keys are made under the storage root key (SRK) with fixedTPM, fixedParent and sensitiveDataOrigin, which is read back,
// and without a password. They are wrapped by default: the private half leaves the chip only encrypted under the SRK, in
// a blob of the TSS2 PRIVATE KEY format that other tools read, so there may be as many keys as there is disk. Resident keys
// take one of the chip's few persistent handles.
//
// One caller at a time has the chip; the others wait in line, under their contexts. The few objects that fit in the chip
// at once are the keys used last. Commands that use a key or carry a secret run in one session whose secret was agreed
// with the SRK (or, with Config.ExpectedEK, with the endorsement key), so that a listener on the bus neither reads
// secrets nor changes answers unseen. When the TPM was reset or its connection was lost, the next call connects
// again, starts a new session and loads its key anew; [holdfast.Key] values stay valid.
//
// What it trusts: the TPM itself, and, unless ExpectedEK is set, that what answers on the device is the TPM.
package tpm
