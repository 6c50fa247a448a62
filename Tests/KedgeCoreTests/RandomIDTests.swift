// That the 32 digits of an id and of a content hash are parsed exactly as they are printed, and nothing else is.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct RandomIDTests {
    @Test("an id is parsed from what it prints, and the halves are in their places")
    func roundTrip() {
        let random = SeededRandom(seed: testSeed())
        let some: [RandomID] = [.zero, RandomID(high: 1, low: .max), RandomID(high: .max, low: 1)]
        for id in some + (0..<200).map({ _ in RandomID(from: random) }) {
            #expect(RandomID(hex: id.hex) == id)
            #expect(RandomID(hex: Substring("x" + id.hex).dropFirst()) == id)
            #expect(ContentHash(hex: id.hex) == ContentHash(high: id.high, low: id.low))
        }
        let id = RandomID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)
        #expect(RandomID(hex: "0123456789abcdeffedcba9876543210") == id)
    }

    @Test("nothing but 32 lower-case digits is an id")
    func refused() {
        let good = "0123456789abcdef0123456789abcdef"
        for text in ["", String(good.dropLast()), good + "0", "0x" + good.dropFirst(2), good.uppercased()] {
            #expect(RandomID(hex: text) == nil, "\(text)")
        }
        // The neighbours of the digits, a sign, and what has more bytes than characters.
        for other in ["/", ":", "`", "g", "@", "+", "-", " ", "\0", "é", "٣"] {
            #expect(RandomID(hex: other + good.dropFirst()) == nil, "\(other)")
            #expect(RandomID(hex: other + good.dropFirst(other.utf8.count)) == nil, "\(other)")
        }
    }
}
