// Time zones against answers that Python's zoneinfo gave: POSIX rules by themselves, and the zone files of this host.
import Glibc
import KedgeCore
import Testing

@Suite struct TimeZoneRulesTests {
    @Test("a POSIX rule gives the offset at every change and far away from them", arguments: posixAnswers)
    func posixRules(_ rule: String, _ answers: [(Int64, Int64)]) throws {
        let zone = try #require(PosixTimeZone(rule))
        for (time, offset) in answers { #expect(zone.offset(at: time) == offset, "at \(time)") }
    }

    static let posixAnswers: [(String, [(Int64, Int64)])] = [
        (
            "CET-1CEST,M3.5.0,M10.5.0/3",
            [
                (2469056399, 3600), (2469056400, 7200), (2487200399, 7200), (2487200400, 3600),
                (2500505999, 3600), (2500506000, 7200), (2519254799, 7200), (2519254800, 3600),
                (5317017597, 7200), (2337446730, 3600),
            ]
        ),
        (
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            [
                (2469625199, 39600), (2469625200, 37800), (2485351799, 37800), (2485351800, 39600),
                (2501074799, 39600), (2501074800, 37800), (2516801399, 37800), (2516801400, 39600),
                (5883912612, 37800), (2593816829, 39600),
            ]
        ),
        (
            "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
            [
                (2469056399, -7200), (2469056400, -3600), (2487200399, -3600), (2487200400, -7200),
                (2500505999, -7200), (2500506000, -3600), (2519254799, -3600), (2519254800, -7200),
                (4576411609, -7200), (4351523365, -7200),
            ]
        ),
        (
            "EET-2EEST,M3.4.4/50,M10.4.4/50",
            [
                (2468966399, 7200), (2468966400, 10800), (2487106799, 10800), (2487106800, 7200),
                (2500415999, 7200), (2500416000, 10800), (2519161199, 10800), (2519161200, 7200),
                (3596902313, 7200), (5408884292, 10800),
            ]
        ),
        (
            "IST-1GMT0,M10.5.0,M3.5.0/1",
            [
                (2469056399, 0), (2469056400, 3600), (2487200399, 3600), (2487200400, 0), (2500505999, 0),
                (2500506000, 3600), (2519254799, 3600), (2519254800, 0), (1006443827, 0), (2045921456, 0),
            ]
        ),
        (
            "AAA3BBB,J60,J300/1:30:15",
            [
                (2466651599, -10800), (2466651600, -7200), (2487382214, -7200), (2487382215, -10800),
                (2498187599, -10800), (2498187600, -7200), (2518918214, -7200), (2518918215, -10800),
                (646892613, -7200), (2726705791, -7200),
            ]
        ),
        (
            // From glibc: Python takes the zero-based day of the year for a one-based one.
            "AAA-4BBB,59,299",
            [
                (2466539999, 14400), (2466540000, 18000), (2487272399, 18000), (2487272400, 14400),
                (2498162399, 14400), (2498162400, 18000), (2518894799, 18000), (2518894800, 14400),
                (2247046192, 18000), (3183652505, 14400),
            ]
        ),
        (
            "XXX3EDT4,0/0,J365/23",
            [
                (275012945, -14400), (2538753386, -14400),
            ]
        ),
        (
            "IST-5:30",
            [
                (5588902047, 19800), (4428161742, 19800),
            ]
        ),
        (
            "<+00>0<+02>-2,M3.5.0/1,M10.5.0/3",
            [
                (2469056399, 0), (2469056400, 7200), (2487200399, 7200), (2487200400, 0), (2500505999, 0),
                (2500506000, 7200), (2519254799, 7200), (2519254800, 0), (3717411168, 7200),
                (3774472248, 7200),
            ]
        ),
    ]

    @Test(
        "what is not a POSIX rule is refused",
        arguments: [
            "", "C-1", "CET", "CET-1CEST", "CET-25", "CET-1CEST,M13.1.0,M10.5.0", "CET-1CEST,M3.0.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0", "CET-1CEST,M3.5.0", "CET-1CEST,J0,J5", "CET-1CEST,1,366", "CET-1x", "<CET-1",
            "CET-1CEST,M3.5.0/168,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0,", "CET--1", "CET-99999999999999999999",
        ])
    func notPosixRules(_ text: String) {
        #expect(PosixTimeZone(text) == nil)
    }

    private static let directory = "/usr/share/zoneinfo"

    private func zone(_ name: String) throws(KedgeError) -> TimeZoneRules {
        let file = try FileDescriptor.open(RawPath("\(TimeZoneRulesTests.directory)/\(name)"), [.read])
        return try TimeZoneRules(name: name, file: try file.readAll(limit: 1 << 20))
    }

    @Test(
        "zone files say which moments a clock's reading stands for: one, none or two",
        .enabled(if: access(directory, F_OK) == 0, "this host has no zone files"), arguments: zoneAnswers)
    func zoneFiles(_ name: String, _ reading: String, _ moments: [Int64]) throws {
        let local = try WrittenTime(reading).localMicroseconds / 1_000_000
        #expect(try zone(name).moments(showing: local) == moments)
    }

    static let zoneAnswers: [(String, String, [Int64])] = [
        ("Europe/Berlin", "2026-03-29 02:30:00", []),
        ("Europe/Berlin", "2026-10-25 02:30:00", [1792888200, 1792891800]),
        ("Europe/Berlin", "2045-07-01 12:00:00", [2382516000]),
        ("Europe/Berlin", "2045-10-29 02:59:59", [2392851599, 2392855199]),
        ("Europe/Berlin", "2045-10-29 03:00:00", [2392855200]),
        ("Europe/Berlin", "1945-05-24 02:30:00", []),
        ("America/New_York", "2026-11-01 01:30:00", [1793511000, 1793514600]),
        ("America/New_York", "2026-03-08 02:00:00", []),
        ("America/New_York", "2099-12-31 23:59:59", [4102462799]),
        ("Australia/Lord_Howe", "2026-04-05 01:45:00", [1775313900, 1775315700]),
        ("Australia/Lord_Howe", "2026-10-04 02:15:00", []),
        ("Australia/Lord_Howe", "2051-01-15 00:00:00", [2557314000]),
        ("Pacific/Apia", "2011-12-30 12:00:00", []),
        ("Pacific/Apia", "2011-12-31 12:00:00", [1325282400]),
        ("Europe/Dublin", "2040-01-10 12:00:00", [2209809600]),
        ("Europe/Dublin", "2040-07-10 12:00:00", [2225530800]),
        ("Antarctica/Troll", "2050-03-27 02:00:00", []),
        ("Asia/Kolkata", "2026-11-20 14:30:00", [1795165200]),
        ("America/Sao_Paulo", "2018-11-04 00:30:00", []),
        ("America/Sao_Paulo", "2026-11-04 00:30:00", [1793763000]),
        ("Africa/Monrovia", "1960-06-01 00:00:00", [-302483730]),
        ("Africa/Monrovia", "1972-01-07 00:30:00", []),
        ("Pacific/Apia", "2176-01-12 06:20:53", [6501662453]),
        ("Europe/Berlin", "1985-02-13 23:09:21", [477180561]),
        ("Pacific/Apia", "2145-12-04 06:29:54", [5551608594]),
        ("Asia/Kolkata", "2099-07-31 04:13:06", [4089134586]),
        ("America/New_York", "2032-01-06 02:13:59", [1956986039]),
        ("Africa/Monrovia", "2015-06-08 12:14:36", [1433765676]),
        ("Europe/Dublin", "1986-10-23 21:39:34", [530483974]),
        ("America/New_York", "1976-08-27 23:29:22", [210050962]),
        ("Australia/Lord_Howe", "1905-12-05 10:04:51", [-2022018909]),
        ("Europe/Berlin", "2012-10-27 10:24:57", [1351326297]),
        ("Asia/Kolkata", "1989-12-05 19:25:47", [628869347]),
        ("Australia/Lord_Howe", "2053-05-02 19:26:33", [2629788993]),
        ("Asia/Kolkata", "2181-12-07 06:01:13", [6687966673]),
        ("America/Sao_Paulo", "2009-03-12 13:16:28", [1236874588]),
        ("Africa/Monrovia", "2005-12-14 02:16:34", [1134526594]),
        ("Europe/Dublin", "2057-01-09 09:02:56", [2746256576]),
        ("Pacific/Apia", "2117-03-06 10:49:21", [4644424161]),
        ("Australia/Lord_Howe", "2040-01-26 07:08:46", [2211134926]),
        ("Pacific/Apia", "2059-11-14 10:43:23", [2835985403]),
        ("America/Sao_Paulo", "2078-01-26 15:22:25", [3410446945]),
        ("Pacific/Apia", "1999-07-06 21:16:49", [931335409]),
        ("Pacific/Apia", "2111-01-08 00:24:05", [4450073045]),
        ("Antarctica/Troll", "2119-05-23 05:05:12", [4714254312]),
        ("Europe/Dublin", "1909-06-25 20:36:33", [-1909796286]),
        ("Europe/Berlin", "1997-08-31 05:25:36", [872997936]),
        ("Asia/Kolkata", "1965-10-21 11:58:26", [-132427894]),
        ("Asia/Kolkata", "2141-05-14 17:52:16", [5407820536]),
        ("Antarctica/Troll", "2086-12-13 16:40:13", [3690636013]),
        ("Antarctica/Troll", "2033-10-29 05:08:38", [2014168118]),
        ("Africa/Monrovia", "2093-11-30 20:55:54", [3910452954]),
    ]

    @Test("a zone file that is damaged at any place is an error or another zone, never a trap")
    func damagedFiles() throws {
        let file = ZoneFile.twoOffsets
        let whole = try TimeZoneRules(name: "Test/Zone", file: file)
        #expect(whole.offset(at: 0) == 3600)
        #expect(whole.offset(at: 2_469_056_399) == 3600)
        #expect(whole.offset(at: 2_469_056_400) == 7200)
        #expect(whole.offset(at: 2_487_200_400) == 3600)
        for length in 0..<file.count {
            #expect(throws: KedgeError.self) { try TimeZoneRules(name: "x", file: Array(file[..<length])) }
        }
        for index in file.indices {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] as [UInt8] {
                var damaged = file
                damaged[index] = value
                do {
                    _ = try TimeZoneRules(name: "x", file: damaged).moments(showing: 2_469_060_000)
                } catch {
                    #expect(error.code == .damaged)
                }
            }
        }
    }

    @Test("a damaged zone file is named with what is wrong")
    func damageMessage() {
        #expect(throws: KedgeError.self) { try TimeZoneRules(name: "Europe/Berlin", file: Array("TZif1".utf8)) }
        do throws(KedgeError) {
            _ = try TimeZoneRules(name: "Europe/Berlin", file: [UInt8](repeating: 65, count: 100))
        } catch {
            #expect(error.message == "cannot read the file of time zone \"Europe/Berlin\"")
            #expect(error.detail == "It is not a zone file: it begins otherwise.")
            #expect(error.hint == "Install the package tzdata again.")
        }
    }

    @Test("names of zones cannot leave the directory of zone files")
    func names() {
        for name in ["Europe/Berlin", "UTC", "Etc/GMT+5", "America/Port-au-Prince", "America/Argentina/Buenos_Aires"] {
            #expect(TimeZoneRules.isValidName(name))
        }
        for name in [
            "", "/etc/passwd", "../x", "Europe/../../x", "Europe//Berlin", "Europe/", "a b", "a\0", ".x", "a/.b",
        ] {
            #expect(!TimeZoneRules.isValidName(name))
        }
        #expect(!TimeZoneRules.isValidName(String(repeating: "a", count: 65)))
    }
}

/// A zone file made by hand: +01 until March 29, 2048, 01:00 UTC, then central European rules.
private enum ZoneFile {
    static var twoOffsets: [UInt8] {
        func header(times: UInt8, types: UInt8) -> [UInt8] {
            Array("TZif2".utf8) + [UInt8](repeating: 0, count: 15)
                + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, times, 0, 0, 0, types, 0, 0, 0, 4]
        }
        let name: [UInt8] = Array("CET\0".utf8)
        let old: [UInt8] = header(times: 0, types: 1) + [0, 0, 0, 0, 0, 0] + name
        let times: [UInt8] = [0x00, 0x00, 0x00, 0x00, 0x93, 0x2A, 0xCF, 0x90]
        let types: [UInt8] = [1, 0, 0, 0x0E, 0x10, 0, 0, 0, 0, 0x1C, 0x20, 1, 0]
        return old + header(times: 1, types: 2) + times + types + name + Array("\nCET-1CEST,M3.5.0,M10.5.0/3\n".utf8)
    }
}
