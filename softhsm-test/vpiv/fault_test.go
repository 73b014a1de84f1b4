package vpiv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"io"
	"testing"
)

const apduSign = "00 87 11 9A 26 7C 24 82 00 81 20 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F 10 11 12 13 14 15 16 17 18 19 1A 1B 1C 1D 1E 1F 20"

// newSigner makes a card with a P-256 key in 9A that needs no PIN.
func newSigner(t *testing.T) (*host, *ecdsa.PublicKey) {
	t.Helper()
	h := newHost(t, Config{})
	h.manage()
	point := need(t, h.generate(slotAuthentication, algP256, pinNever, touchNever), tagPoint)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	return h, public
}

func TestFaultAnswer(t *testing.T) {
	h, _ := newSigner(t)
	fault := h.card.Inject(Fault{INS: insAuthenticate, Slot: slotAuthentication, After: 1, Effect: Answer(0x6D00)})
	h.ok("00 FD 00 00")
	h.ok(apduSign)
	h.ok("00 87 0A 9B 04 7C 02 80 00") // another reference
	h.want(swWrongINS, apduSign)
	h.ok(apduSign) // one shot
	if fault.Struck() != 1 {
		t.Errorf("struck %d times", fault.Struck())
	}
	lasting := h.card.Inject(Fault{INS: insAttest, Slot: slotAuthentication, Lasting: true, Effect: Answer(0x6D00)})
	for range 3 {
		h.want(swWrongINS, "00 F9 9A 00")
	}
	h.want(swWrongData, "00 F9 9C 00")
	lasting.Lift()
	if _, sw := h.raw(unhex(t, "00 F9 9A 00")); sw&0xFF00 != swMoreData || lasting.Struck() != 3 {
		t.Errorf("lifted: %v, struck %d times", sw, lasting.Struck())
	}
}

func TestFaultStrikesWholeCommands(t *testing.T) {
	h := newHost(t, Config{})
	h.card.Inject(Fault{INS: insVerify, Effect: Answer(0x6F00)})
	h.ok("10 20 00 80 04 31 32 33 34")
	h.want(0x6F00, "00 20 00 80 04 35 36 FF FF")
	if n := h.card.Seen(insVerify); n != 0 {
		t.Errorf("the card saw %d commands that a fault kept from it", n)
	}
}

func TestFaultWrongAnswer(t *testing.T) {
	h, public := newSigner(t)
	digest := unhex(t, apduSign)[11:]
	h.card.Inject(Fault{INS: insAuthenticate, Effect: WrongAnswer{}})
	if signature := h.object(tagResponse, h.ok(apduSign)); ecdsa.VerifyASN1(public, digest, signature) {
		t.Error("the wrong answer is right")
	}
	if signature := h.object(tagResponse, h.ok(apduSign)); !ecdsa.VerifyASN1(public, digest, signature) {
		t.Error("the right answer is wrong")
	}
	h.card.Inject(Fault{INS: insVerify, Effect: WrongAnswer{}})
	h.want(swTriesLeft|3, "00 20 00 80")
}

func TestFaultBlockPIN(t *testing.T) {
	h := newHost(t, Config{})
	h.card.Inject(Fault{INS: insVerify, Effect: BlockPIN{}})
	if sw := h.verify(DefaultPIN); sw != swBlocked {
		t.Errorf("right PIN: %v", sw)
	}
	h.want(swBlocked, "00 20 00 80")
	h.do(insResetRetry, 0, refPIN, pairs(DefaultPUK, DefaultPIN))
	if sw := h.verify(DefaultPIN); sw != swOK {
		t.Errorf("unblocked: %v", sw)
	}
}

func TestFaultTruncate(t *testing.T) {
	h, _ := newSigner(t)
	for _, n := range []int{0, 1, 10} {
		h.card.Inject(Fault{INS: insAuthenticate, Effect: Truncate(n)})
		if got := h.card.Transmit(unhex(t, apduSign)); len(got) != n {
			t.Errorf("%d bytes, want %d", len(got), n)
		}
	}
	h.card.Inject(Fault{Effect: Truncate(1000)})
	h.ok(apduSign)
}

func TestFaultPull(t *testing.T) {
	for _, executed := range []bool{false, true} {
		in := insert(t)
		in.card.Inject(Fault{INS: insVerify, Effect: Pull{Executed: executed}})
		in.ask(apduSelect)
		in.send("00 20 00 80 08 30 30 30 30 30 30 FF FF")
		in.gone()
		want := 3
		if executed {
			want = 2
		}
		if got := in.card.PINTries(); got != want {
			t.Errorf("executed %v: %d tries left, want %d", executed, got, want)
		}
	}
}

func TestFaultCut(t *testing.T) {
	in := insert(t)
	in.card.Inject(Fault{INS: insGetVersion, Effect: Cut{}})
	in.ask(apduSelect)
	in.send(apduVersion)
	got, err := io.ReadAll(in.conn)
	if err != nil || !bytes.Equal(got, unhex(t, "00 05 05 07")) { // five bytes announced, two sent
		t.Errorf("% X, %v", got, err)
	}
	if err := <-in.done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestFaultHold(t *testing.T) {
	in := insert(t)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	in.card.Inject(Fault{INS: insGetVersion, Effect: Hold{Entered: entered, Release: release}})
	in.ask(apduSelect)
	in.send(apduVersion)
	<-entered
	in.card.PINTries() // a card that is held up still answers its owner
	close(release)
	if got, err := readMessage(in.conn); err != nil || !bytes.Equal(got, unhex(t, "05 07 01 90 00")) {
		t.Errorf("% X, %v", got, err)
	}
	in.card.Inject(Fault{INS: insVerify, Effect: Hold{Entered: entered, Release: make(chan struct{})}})
	in.send("00 20 00 80 08 30 30 30 30 30 30 FF FF")
	<-entered
	in.pull()
	in.gone()
	if got := in.card.PINTries(); got != 3 {
		t.Errorf("a command that was held up took effect: %d tries left", got)
	}
}
