// That runs, gaps and conflicts of archived WAL are read off the names of objects.

import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct WALInventoryTests {
    static let segmentSize: UInt64 = 16 << 20

    static func name(_ timeline: UInt32, _ number: UInt64) -> String {
        WALSegment(timeline: TimelineID(timeline), number: number).fileName(segmentSize: segmentSize)
    }

    static func inventory(_ names: [String]) -> WALInventory {
        var inventory = WALInventory(segmentSize: segmentSize)
        for name in names.sorted() { inventory.add(objectNamed: name, storedBytes: 10) }
        return inventory
    }

    @Test("consecutive segments make one run, also over the border of a log file")
    func runs() throws {
        let inventory = Self.inventory((250...260).map { Self.name(1, $0) } + [Self.name(1, 300)])
        let timeline = try #require(inventory.timeline(TimelineID(1)))
        #expect(timeline.runs == [250...260, 300...300])
        #expect(timeline.gaps == [261...299])
        #expect(timeline.segmentCount == 12)
        #expect(timeline.storedBytes == 120)
        #expect(timeline.contains(255) && !timeline.contains(270) && !timeline.contains(249))
    }

    @Test("timelines are kept apart and ordered by number, not by name (lesson 3)")
    func timelines() {
        let inventory = Self.inventory([Self.name(16, 1), Self.name(2, 1), "00000010.history", "00000002.history"])
        #expect(inventory.timelines.map(\.id) == [TimelineID(2), TimelineID(16)])
        #expect(inventory.histories == [TimelineID(2), TimelineID(16)])
    }

    @Test("the union of two repositories has what either can give out")
    func union() {
        let random = SeededRandom(seed: testSeed())
        for round in 0..<300 {
            // How many different copies each repository has of each file: none, one, or two that conflict.
            func copies() -> [Int] { (0..<24).map { _ in [0, 0, 1, 1, 1, 2][random.next(below: 6)] } }
            func inventory(_ whole: [Int], _ partial: [Int]) -> WALInventory {
                var names: [String] = []
                for (number, count) in whole.enumerated() {
                    let tags = ["", "-0123456789abcdef0123456789abcdef", "-1123456789abcdef0123456789abcdef"]
                    names += tags.suffix(2).prefix(count == 2 ? 2 : 0).map { Self.name(1, UInt64(number + 1)) + $0 }
                    if count == 1 { names.append(Self.name(1, UInt64(number + 1))) }
                    names += tags.suffix(2).prefix(partial[number]).map {
                        Self.name(1, UInt64(number + 1)) + ".partial" + $0
                    }
                }
                return Self.inventory(names)
            }
            let (a, b, c, d) = (copies(), copies(), copies(), copies())
            let union = inventory(a, c).union(inventory(b, d))
            let timeline = union.timelines.first
            for index in 0..<24 {
                let number = UInt64(index + 1)
                #expect(timeline?.contains(number) == (a[index] + b[index] > 0), "round \(round)")
                #expect(timeline?.partials.contains(number) == (c[index] + d[index] > 0), "round \(round)")
                let conflicts = a[index] + b[index] > 0 && a[index] != 1 && b[index] != 1
                #expect(timeline?.segmentConflicts.contains(number) == conflicts, "round \(round)")
                let partialConflicts = c[index] + d[index] > 0 && c[index] != 1 && d[index] != 1
                #expect(timeline?.partialConflicts.contains(number) == partialConflicts, "round \(round)")
            }
            #expect(
                zip(timeline?.runs ?? [], (timeline?.runs ?? []).dropFirst()).allSatisfy {
                    $0.upperBound + 1 < $1.lowerBound
                })
        }
    }

    @Test("without files that are of no use it is the inventory of the others")
    func without() {
        let random = SeededRandom(seed: testSeed())
        for round in 0..<200 {
            let numbers = (1...30).filter { _ in random.next(below: 4) > 0 }.map { UInt64($0) }
            let partials = numbers.filter { _ in random.next(below: 4) == 0 }
            let lost = numbers.filter { _ in random.next(below: 5) == 0 }
            let lostPartials = partials.filter { _ in random.next(below: 2) == 0 }
            func names(_ numbers: [UInt64], _ partials: [UInt64]) -> [String] {
                numbers.map { Self.name(1, $0) } + partials.map { Self.name(1, $0) + ".partial" }
            }
            let rest = Self.inventory(names(numbers, partials)).without(
                lost.map { (WALSegment(timeline: TimelineID(1), number: $0), false) }
                    + lostPartials.map { (WALSegment(timeline: TimelineID(1), number: $0), true) })
            let expected = Self.inventory(
                names(
                    numbers.filter { !lost.contains($0) },
                    partials.filter { !lost.contains($0) && !lostPartials.contains($0) }))
            #expect(rest.timelines.first?.runs ?? [] == expected.timelines.first?.runs ?? [], "round \(round)")
            #expect(rest.timelines.first?.partials ?? [] == expected.timelines.first?.partials ?? [], "round \(round)")
        }
    }

    @Test("two contents of one segment are a conflict, also of a partial one")
    func conflicts() {
        let one = ContentHash(high: 1, low: 1).hex
        let two = ContentHash(high: 2, low: 2).hex
        let inventory = Self.inventory([
            Self.name(1, 5) + "-" + one, Self.name(1, 5) + "-" + two, Self.name(1, 6) + ".partial-" + one,
            Self.name(1, 6) + ".partial-" + two, Self.name(1, 7) + ".partial-" + one,
        ])
        #expect(inventory.timelines.first?.conflicts == [5, 6])
        #expect(inventory.timelines.first?.partials == [6, 7])
        #expect(inventory.timelines.first?.runs == [5...5])
    }

    @Test("what is no WAL is listed as a stranger")
    func strangers() {
        #expect(Self.inventory(["README", Self.name(1, 5)]).strangers == ["README"])
    }

    @Test("runs agree with a plain set of numbers, whatever is missing")
    func generated() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            let present = Set((0..<40).filter { _ in Bool.random(using: &random) }.map(UInt64.init))
            let timeline = Self.inventory(present.map { Self.name(3, $0) }).timeline(TimelineID(3))
            #expect(Set(timeline?.runs.flatMap { Array($0) } ?? []) == present)
            for number in UInt64(0)..<41 { #expect((timeline?.contains(number) ?? false) == present.contains(number)) }
        }
    }
}
