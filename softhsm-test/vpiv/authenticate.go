package vpiv

// generalAuthenticate is GENERAL AUTHENTICATE: P1 the algorithm, P2 the key reference (SP 800-73-4 part 2, section
// 3.2.4). fresh says that the command before was a successful VERIFY.
//
// A key answers whatever its algorithm can do, in any slot, as the cards with the extensions let it: SP 800-73-4 would
// not sign in 9D nor agree in 9A.
func (c *Card) generalAuthenticate(cmd command, fresh bool) ([]byte, status) {
	objects, ok := parseTemplate(tagDynamic, cmd.data)
	if !ok {
		return nil, swWrongData
	}
	if cmd.p2 == refManagement {
		return c.authenticateManagement(cmd.p1, objects)
	}
	if !isSlot(cmd.p2) || cmd.p2 == slotAttestation {
		return nil, swWrongP1P2
	}
	key := c.state.keys[cmd.p2]
	if key == nil {
		return nil, swNoReference
	}
	if cmd.p1 != key.algorithm {
		return nil, swWrongP1P2
	}
	if !c.permitted(key, fresh) {
		return nil, swSecurity
	}
	if response, asked := findTLV(objects, tagResponse); !asked || len(response) != 0 {
		return nil, swWrongData
	}
	answer, sw := []byte(nil), swWrongData
	if challenge, ok := findTLV(objects, tagChallenge); ok {
		answer, sw = key.private.sign(challenge)
	} else if peer, ok := findTLV(objects, tagExponentiation); ok {
		answer, sw = key.private.agree(peer)
	}
	if sw != swOK {
		return nil, sw
	}
	return dynamic(tagResponse, answer), swOK
}
