package vpiv

// tlv is one BER-TLV data object (ISO/IEC 7816-4, section 5.2.2). The tag's bytes are read as one big-endian number, as
// the standards write them: 0x7F49, 0x5FC105.
type tlv struct {
	tag   uint32
	value []byte // aliases the input
}

// nextTLV takes the first data object off b. Tags of up to three bytes and lengths of up to three bytes are understood,
// lengths longer than they need be too; indefinite lengths are not, as PIV has none.
func nextTLV(b []byte) (t tlv, rest []byte, ok bool) {
	tag, rest, ok := cutTag(b)
	if !ok {
		return tlv{}, nil, false
	}
	n, rest, ok := cutLength(rest)
	if !ok || n > len(rest) {
		return tlv{}, nil, false
	}
	return tlv{tag: tag, value: rest[:n:n]}, rest[n:], true
}

// parseTLVs takes b apart into the data objects it is a sequence of, one level deep.
func parseTLVs(b []byte) ([]tlv, bool) {
	var all []tlv
	for len(b) > 0 {
		t, rest, ok := nextTLV(b)
		if !ok {
			return nil, false
		}
		all, b = append(all, t), rest
	}
	return all, true
}

// parseTemplate takes apart data that is exactly one constructed object of that tag and returns what it holds.
func parseTemplate(tag uint32, data []byte) ([]tlv, bool) {
	t, rest, ok := nextTLV(data)
	if !ok || len(rest) != 0 || t.tag != tag {
		return nil, false
	}
	return parseTLVs(t.value)
}

// findTLV returns the value of the first object with that tag; present tells an empty value from none.
func findTLV(all []tlv, tag uint32) (value []byte, present bool) {
	for _, t := range all {
		if t.tag == tag {
			return t.value, true
		}
	}
	return nil, false
}

// appendTLV appends a data object in DER: the shortest length.
func appendTLV(dst []byte, tag uint32, value []byte) []byte {
	switch {
	case tag > 0xFFFF:
		dst = append(dst, byte(tag>>16), byte(tag>>8), byte(tag))
	case tag > 0xFF:
		dst = append(dst, byte(tag>>8), byte(tag))
	default:
		dst = append(dst, byte(tag))
	}
	n := len(value)
	switch {
	case n < 0x80:
		dst = append(dst, byte(n))
	case n < 0x100:
		dst = append(dst, 0x81, byte(n))
	case n < 0x10000:
		dst = append(dst, 0x82, byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, value...)
}

// encodeTLV returns one data object in DER.
func encodeTLV(tag uint32, value []byte) []byte { return appendTLV(nil, tag, value) }

// moreTagBytes are the low bits of a first tag byte that say another follows; a later byte says so by its high bit.
const moreTagBytes = 0x1F

func cutTag(b []byte) (tag uint32, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	tag = uint32(b[0])
	if b[0]&moreTagBytes != moreTagBytes {
		return tag, b[1:], true
	}
	for i := 1; i < 3 && i < len(b); i++ {
		tag = tag<<8 | uint32(b[i])
		if b[i]&0x80 == 0 {
			return tag, b[i+1:], true
		}
	}
	return 0, nil, false
}

func cutLength(b []byte) (n int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	if b[0] < 0x80 {
		return int(b[0]), b[1:], true
	}
	size := int(b[0] & 0x7F)
	if size == 0 || size > 3 || len(b) < 1+size {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+size] {
		n = n<<8 | int(c)
	}
	return n, b[1+size:], true
}
