package token

import (
	"encoding/binary"
	"iter"

	"holdfast"
)

// tlvs walks over BER-TLV data objects with tags of one byte and lengths of up to two (SP 800-73-4 uses no others
// inside an object). It stops at the first that is malformed.
func tlvs(b []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(b) >= 2 {
			tag, n, head := b[0], int(b[1]), 2
			switch {
			case n == 0x81 && len(b) >= 3:
				n, head = int(b[2]), 3
			case n == 0x82 && len(b) >= 4:
				n, head = int(binary.BigEndian.Uint16(b[2:])), 4
			case n >= 0x80:
				return
			}
			if len(b) < head+n || !yield(tag, b[head:head+n]) {
				return
			}
			b = b[head+n:]
		}
	}
}

// secretState is what GET METADATA tells of the PIN (80), the PUK (81) or the management key (9B).
type secretState struct {
	algorithm   byte
	isDefault   Answer
	total, left int
}

// parseSecretState reads tags 01 algorithm, 05 default flag and 06 tries, total and left.
func parseSecretState(b []byte) secretState {
	s := secretState{total: holdfast.RetriesUnknown, left: holdfast.RetriesUnknown}
	for tag, value := range tlvs(b) {
		switch {
		case tag == 0x01 && len(value) == 1:
			s.algorithm = value[0]
		case tag == 0x05 && len(value) == 1:
			s.isDefault = No
			if value[0] == 1 {
				s.isDefault = Yes
			}
		case tag == 0x06 && len(value) == 2:
			s.total, s.left = int(value[0]), int(value[1])
		}
	}
	return s
}

// objectValue returns the value of the data object with tag in b.
func objectValue(b []byte, tag byte) ([]byte, bool) {
	for t, value := range tlvs(b) {
		if t == tag {
			return value, true
		}
	}
	return nil, false
}
