// That no plan takes the last way to a data key that anything needs, that none locks out the configured secret unasked,
// and that nothing harmless is refused: generated repositories against the rules said once more in other words.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct KeyRemovalPlanTests {
    private typealias Slot = KeyRemovalPlan.Slot

    private struct Case {
        var slots: [Slot] = []
        var selection = KeyRemovalPlan.Selection.label("a")
        var usage: KeyUsage?
        var age: Int64 = 0
        var mayLockOut = false

        init(_ random: SeededRandom) {
            let keys = 1 + random.next(below: 4)
            var objects: [RandomID: Int] = [:]
            for sequence in 1...keys {
                let key = KeyVersion(sequence: UInt64(sequence), id: RandomID(from: random))
                if random.next(below: 2) == 0 { objects[key.id] = 1 + random.next(below: 9) }
                for _ in 0..<(1 + random.next(below: 3)) {
                    let id = RandomID(from: random).hex
                    let isUsable = random.next(below: 6) > 0
                    slots.append(
                        Slot(
                            name: RepositoryLayout.keySlot(key: key.id, slot: String(id.prefix(16))) ?? "kedge.json",
                            key: key, id: String(id.prefix(16)),
                            label: isUsable ? ["a", "b", "c"][random.next(below: 3)] : "", isUsable: isUsable,
                            opens: isUsable && random.next(below: 3) > 0))
                }
            }
            if random.next(below: 2) == 0 {
                selection = .slot(slots[random.next(below: slots.count)].id)
            } else {
                selection = .label(["a", "b", "c"][random.next(below: 3)])
            }
            if random.next(below: 4) > 0 {
                usage = KeyUsage(objects: objects, unreadable: random.next(below: 6) == 0 ? ["main/x"] : [])
            }
            age = [0, KeyRemovalPlan.grace - 1, KeyRemovalPlan.grace, KeyRemovalPlan.grace * 9][random.next(below: 4)]
            mayLockOut = random.next(below: 3) == 0
        }
    }

    @Test("generated plans keep every data key that is needed, and refuse nothing harmless")
    func generated() throws {
        let seed = testSeed()
        let random = SeededRandom(seed: seed)
        var (planned, droppedKeys, refused) = (0, 0, 0)
        for number in 0..<20_000 {
            let generated = Case(random)
            let context = Comment(rawValue: "seed \(seed), case \(number): \(generated)")
            let newest = generated.slots.filter(\.opens).map(\.key).max()
            do throws(KeyRemovalPlan.Refusal) {
                let plan = try KeyRemovalPlan(
                    generated.slots, generated.selection, usage: generated.usage, newestAge: generated.age,
                    mayLockOut: generated.mayLockOut)
                planned += 1
                droppedKeys += plan.dropped.count
                #expect(!plan.removed.isEmpty, context)
                let left = generated.slots.filter { !plan.removed.contains($0) }
                for key in Set(generated.slots.map(\.key)) {
                    let isTouched = plan.removed.contains { $0.key == key }
                    guard isTouched else { continue }
                    let isProvenUnused =
                        generated.usage.map {
                            $0.objects[key.id] == nil && $0.unreadable.isEmpty
                        } ?? false
                    let isLost = !left.contains { $0.key == key && $0.isUsable }
                    // What anything may need stays, and so does the key that new objects are sealed with.
                    #expect(!isLost || (isProvenUnused && key != newest), context)
                    #expect(isLost == plan.dropped.contains(key), context)
                    #expect(!isLost || generated.age >= 86_400, context)
                    // The configured secret loses no key unasked, but for one that nothing needs.
                    let opened = generated.slots.contains { $0.key == key && $0.opens }
                    let opens = left.contains { $0.key == key && $0.opens }
                    #expect(!opened || opens || generated.mayLockOut || isLost, context)
                }
            } catch {
                refused += 1
                let selected = generated.slots.filter { slot in
                    switch generated.selection {
                    case .slot(let id): slot.id == id
                    case .label(let label): slot.isUsable && slot.label == label
                    }
                }
                let isHarmless = Set(selected.map(\.key)).allSatisfy { key in
                    generated.slots.contains { $0.key == key && $0.opens && !selected.contains($0) }
                }
                #expect(selected.isEmpty || !isHarmless, "refused \(error): \(context.rawValue)")
                #expect((error == .nothingSelected) == selected.isEmpty, context)
            }
        }
        #expect(planned > 2000 && refused > 2000 && droppedKeys > 50, "\(planned) \(refused) \(droppedKeys)")
    }

    @Test("each refusal, and what lifts it")
    func refusals() throws {
        let (old, new) = (KeyVersion(sequence: 1, id: RandomID(high: 1, low: 1)), KeyVersion(sequence: 2, id: .zero))
        func slot(_ key: KeyVersion, _ label: String, opens: Bool = true) -> KeyRemovalPlan.Slot {
            let id = label + String(repeating: "0", count: 15)
            return KeyRemovalPlan.Slot(
                name: RepositoryLayout.keySlot(key: key.id, slot: id) ?? "x", key: key, id: id, label: label,
                isUsable: true, opens: opens)
        }
        func refusal(
            _ slots: [KeyRemovalPlan.Slot], _ label: String, usage: KeyUsage? = KeyUsage(),
            age: Int64 = KeyRemovalPlan.grace, mayLockOut: Bool = false
        ) -> KeyRemovalPlan.Refusal? {
            do throws(KeyRemovalPlan.Refusal) {
                _ = try KeyRemovalPlan(slots, .label(label), usage: usage, newestAge: age, mayLockOut: mayLockOut)
                return nil
            } catch { return error }
        }
        let both = [slot(old, "a"), slot(new, "b")]
        #expect(refusal(both, "x") == .nothingSelected)
        #expect(refusal(both, "b", mayLockOut: true) == .newestKey(new))
        #expect(refusal(both, "a", usage: nil) == .neededKey(old, objects: 0, unreadable: 0))
        let used = KeyUsage(objects: [old.id: 3])
        #expect(refusal(both, "a", usage: used, mayLockOut: true) == .neededKey(old, objects: 3, unreadable: 0))
        let unknown = KeyUsage(objects: [:], unreadable: ["main/x", "main/y"])
        #expect(refusal(both, "a", usage: unknown) == .neededKey(old, objects: 0, unreadable: 2))
        #expect(refusal(both, "a", age: KeyRemovalPlan.grace - 1, mayLockOut: true) == .tooEarly(old))
        #expect(refusal(both, "a") == nil)
        let shared = [slot(new, "a"), slot(new, "b", opens: false)]
        #expect(refusal(shared, "a") == .locksOut(new) && refusal(shared, "a", mayLockOut: true) == nil)
        #expect(refusal(shared, "b") == nil)
        let closed = [slot(old, "a", opens: false), slot(new, "b")]
        #expect(refusal(closed, "a") == .closedKey(old) && refusal(closed, "a", mayLockOut: true) == nil)
    }
}
