// Positions and file names, compared with what PostgreSQL itself prints.
import KedgeCore
import Testing

@Suite struct LSNTests {
    @Test("an LSN is printed and parsed as pg_lsn does", arguments: ["0/0", "0/2000028", "A/FF", "7FFFFFFF/FFFFFFFF"])
    func roundTrip(_ text: String) throws {
        #expect(try #require(LSN(text)).description == text)
    }

    @Test(
        "what is not an LSN is refused", arguments: ["", "/", "1/", "/1", "1", "123456789/0", "0/g", "+1/1", "0/0/0"])
    func refused(_ text: String) {
        #expect(LSN(text) == nil)
    }

    @Test("positions that no server reaches are refused, so that what is computed from hostile ones never overflows")
    func bound() throws {
        #expect(LSN("80000000/0") == nil && LSN("FFFFFFFF/FFFFFFFF") == nil)
        for size in [1 << 20, 1 << 30] as [UInt64] {
            let last = size == 1 << 20 ? "00000FFF" : "00000003"
            #expect(WALSegment(fileName: "00000001FFFFFFFF" + last, segmentSize: size) == nil)
            #expect(WALSegment(fileName: "0000000180000000" + "00000000", segmentSize: size) == nil)
            let segment = try #require(WALSegment(fileName: "000000017FFFFFFF" + last, segmentSize: size))
            #expect(segment.next.startLSN(segmentSize: size) == LSN.bound)
        }
    }

    @Test("timelines and segments are hexadecimal: timeline 16 is 00000010 (lesson 3)")
    func hexadecimalTimeline() throws {
        let segment = try #require(WALSegment(fileName: "000000100000000A000000FF", segmentSize: 16 << 20))
        #expect(segment.timeline == TimelineID(16))
        #expect(segment.startLSN(segmentSize: 16 << 20) == LSN("A/FF000000"))
        #expect(segment.next.fileName(segmentSize: 16 << 20) == "000000100000000B00000000")
    }
}
