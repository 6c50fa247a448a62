// Times as people write them: what is read, and the whole message for what is not or could mean two moments.
import KedgeCore
import Testing

private let berlin = TimeZoneRules(name: "Europe/Berlin", rule: PosixTimeZone("CET-1CEST,M3.5.0,M10.5.0/3"))

@Suite struct TimeInputTests {
    @Test(
        "ISO 8601 and PostgreSQL's own output are read",
        arguments: [
            ("2026-11-20 14:30:00+02", "2026-11-20T12:30:00Z"), ("2026-11-20 14:30:00+0200", "2026-11-20T12:30:00Z"),
            ("2026-11-20T14:30:00+05:30", "2026-11-20T09:00:00Z"), ("2026-11-20T14:30:00Z", "2026-11-20T14:30:00Z"),
            ("2026-11-20t14:30z", "2026-11-20T14:30:00Z"), (" 2026-11-20 14:30:00 UTC ", "2026-11-20T14:30:00Z"),
            ("2026-11-20 14:30:00.5-08", "2026-11-20T22:30:00.500000Z"),
            ("2026-11-20 14:30:00.123456 +00", "2026-11-20T14:30:00.123456Z"),
            ("2024-02-29 24:00:00Z", "2024-03-01T00:00:00Z"), ("1960-01-01 00:00:00-00:44:30", "1960-01-01T00:44:30Z"),
            ("0001-01-01 00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31 23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2000-02-29 12:00:00+15:59", "2000-02-28T20:01:00Z"),
        ])
    func parsed(_ text: String, _ moment: String) throws {
        #expect(try TimeInput.parse(text, zone: nil, host: .utc).description == moment)
    }

    @Test("2026-11-20 14:30:00+02 is 1795177800 seconds after 1970")
    func epoch() throws {
        let moment = try TimeInput.parse("2026-11-20 14:30:00+02", zone: berlin, host: berlin)
        #expect(moment == Timestamp(secondsSince1970: 1_795_177_800))
    }

    private func message(_ text: String, zone: TimeZoneRules? = nil, host: TimeZoneRules = .utc) -> String {
        do throws(KedgeError) {
            return "no error but \(try TimeInput.parse(text, zone: zone, host: host))"
        } catch {
            return error.description
        }
    }

    @Test("what is no time is refused with the reason", arguments: TimeInputTests.refusals)
    func refused(_ text: String, _ detail: String) {
        #expect(
            message(text) == """
                cannot read time "\(text)"
                code: usage
                detail: \(detail)
                hint: Write it as "2026-11-20 14:30:00+02" or "2026-11-20T12:30:00Z".
                """)
    }

    static let refusals: [(String, String)] = [
        ("", "The year must have 4 digits."), ("now", "The year must have 4 digits."),
        ("26-11-20 14:30:00Z", "The year must have 4 digits."),
        ("0000-01-01 00:00:00Z", "The year must be from 1 to 9999."),
        ("2026/11/20 14:30:00Z", "In the date a \"-\" is missing."),
        ("2026-13-20 14:30:00Z", "The month must be from 1 to 12."),
        ("2026-00-20 14:30:00Z", "The month must be from 1 to 12."),
        ("2026-11-31 14:30:00Z", "That month has only 30 days."),
        ("2026-02-29 14:30:00Z", "That month has only 28 days."),
        ("2100-02-29 14:30:00Z", "That month has only 28 days."),
        ("2026-11-00 00:00:00Z", "The day must be from 1 to 31."),
        ("2026-11-20", "The time of day is missing."), ("2026-11-20 25:00:00Z", "The hour must be from 0 to 24."),
        ("2026-11-20 24:00:01Z", "The day ends at 24:00:00."),
        ("2026-11-20 24:00:00.000001Z", "The day ends at 24:00:00."),
        ("2026-11-20 14:60:00Z", "The minute must be from 0 to 59."),
        ("2026-11-20 14:30:60Z", "The second must be from 0 to 59."),
        ("2026-11-20 14Z", "In the time of day a \":\" is missing."),
        ("2026-11-20 1:30:00Z", "The hour must have 2 digits."),
        (
            "2026-11-20 14:30:00.1234567Z",
            "A fraction of a second has one to six digits: PostgreSQL keeps microseconds."
        ),
        ("2026-11-20 14:30:00.Z", "A fraction of a second has one to six digits: PostgreSQL keeps microseconds."),
        ("2026-11-20 14:30:00+16", "The hour of the offset must be from 0 to 15."),
        ("2026-11-20 14:30:00+2", "The hour of the offset must have 2 digits."),
        ("2026-11-20 14:30:00+02:60", "The minute of the offset must be from 0 to 59."),
        ("2026-11-20 14:30:00+02:00x", "Something follows the time zone's offset."),
        ("2026-11-20 14:30:00 CET", "\"CET\" is not a time zone's offset."),
        ("2026-11-20 14:30:00é", "\"é\" is not a time zone's offset."),
        ("２026-11-20 14:30:00Z", "The year must have 4 digits."),
    ]

    @Test("a time without a zone is refused with both readings")
    func withoutZone() {
        #expect(
            message("2026-11-20 14:30:00", host: berlin) == """
                cannot tell which moment "2026-11-20 14:30:00" is: it has no time zone
                code: usage
                detail: In UTC it is 2026-11-20T14:30:00Z; in this host's time zone Europe/Berlin it is \
                2026-11-20T13:30:00Z.
                hint: Write "2026-11-20 14:30:00+00" for UTC, or another offset, or give --time-zone Europe/Berlin.
                """)
        #expect(
            message("2026-10-25 02:30:00.5", host: berlin).contains("2026-10-25T00:30:00.500000Z or 2026-10-25T01:"))
        #expect(message("2026-03-29 02:30:00", host: berlin).contains("no moment at all, since clocks skipped it."))
    }

    @Test("with a named zone the clock's reading decides, and an offset in the text wins")
    func namedZone() throws {
        func parse(_ text: String) throws -> String { try TimeInput.parse(text, zone: berlin, host: .utc).description }
        #expect(try parse("2026-11-20 14:30:00.25") == "2026-11-20T13:30:00.250000Z")
        #expect(try parse("2026-07-20 14:30") == "2026-07-20T12:30:00Z")
        #expect(try parse("2026-07-20 14:30Z") == "2026-07-20T14:30:00Z")
        #expect(try parse("1969-12-31 23:59:59.999999") == "1969-12-31T22:59:59.999999Z")
    }

    @Test("a time that clocks showed twice is refused with both moments")
    func ambiguous() {
        #expect(
            message("2026-10-25 02:30:00", zone: berlin) == """
                cannot tell which moment "2026-10-25 02:30:00" is: clocks in time zone "Europe/Berlin" showed it more \
                than once
                code: usage
                detail: It could be 2026-10-25T00:30:00Z (2026-10-25 02:30:00+02) or 2026-10-25T01:30:00Z \
                (2026-10-25 02:30:00+01).
                hint: Write it with its offset, as one of the two in parentheses.
                """)
    }

    @Test("a time that clocks skipped is refused with both readings")
    func skipped() {
        #expect(
            message("2026-03-29 02:30:00", zone: berlin) == """
                cannot tell which moment "2026-03-29 02:30:00" is: clocks in time zone "Europe/Berlin" skipped it
                code: usage
                detail: It could be 2026-03-29T01:30:00Z (2026-03-29 02:30:00+01) or 2026-03-29T00:30:00Z \
                (2026-03-29 02:30:00+02).
                hint: Write it with its offset, as one of the two in parentheses.
                """)
    }
}
