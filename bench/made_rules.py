"""Made-up rules with a known structure, for bench/scale.py: forty topics, the first ten times as frequent as the last,
in many wordings; one rule in twenty is of no topic, and half of the others name something of another one."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

NO_TOPIC = -1
LABELS = ("money", "delivery", "account", "device", "other")
ODD, SLIPS, ASIDE = (
    0.05,
    0.04,
    0.5,
)  # shares: of no topic; with another label than the topic's; that mention another topic


@dataclass(frozen=True)
class Made:
    """`topic`: its place in TOPICS, or NO_TOPIC."""

    text: str
    label: str
    topic: int


def made_rules(number: int, seed: int) -> Iterator[Made]:
    """All different; the first ones are the same for every `number`."""
    generator = random.Random(seed)
    topics = [phrases.split(", ") for phrases in TOPICS]
    every = [phrase for own in topics for phrase in own]
    weights = [1 / (place + 4) for place in range(len(topics))]
    seen: set[str] = set()
    while len(seen) < number:
        if generator.random() < ODD:
            topic = NO_TOPIC
            first, second, third = generator.sample(every, 3)
            label = generator.choice(LABELS)
        else:
            topic = generator.choices(range(len(topics)), weights)[0]
            first, second, third = generator.sample(topics[topic], 3)
            label = LABELS[topic % len(LABELS)]
            if generator.random() < ASIDE:
                second = generator.choice(every)
            if generator.random() < SLIPS:
                label = generator.choice(LABELS)
        text = (
            generator.choice(_OPENINGS).format(first)
            + generator.choice(_ASIDES).format(second)
            + f", {generator.choice(_CIRCUMSTANCES)}, answer {label}"
            + f"{generator.choice(_REASONS).format(third)}."
        )
        if text not in seen:
            seen.add(text)
            yield Made(text, label, topic)


TOPICS = (
    "a second charge, the card statement, one payment taken twice, a duplicate amount, "
    "the bank's booking line, an unexpected debit, the billing date, a charge on the same day",
    "a refund, money that is still missing, the amount to be paid back, a returned payment, the credit note, "
    "days since the refund, the account that gets the money, a partial repayment",
    "a copy of the invoice, the tax number, the company's address on the bill, a receipt for the books, "
    "the invoice as a file, a wrong name on the bill, the accountant, the invoice number",
    "the price of a plan, a discount, the yearly rate, a student's price, a coupon, the cost per seat, "
    "an offer seen elsewhere, the price after the trial",
    "a declined card, the bank's refusal, an expired card, the security code, "
    "a payment that does not go through, another way to pay, the checkout page, a limit on the card",
    "a late parcel, the promised day, the courier, a delivery that never came, the tracking page, "
    "a delay of a week, the depot, the driver's note",
    "a wrong address, the old flat, a house number, a parcel sent to the neighbour, a change of street, "
    "the postcode, moving house, the label on the box",
    "a broken screen, a dented box, glass in the packet, a scratch on the lid, a torn cover, "
    "liquid that leaked, a picture of the damage, a bent frame",
    "a missing screw, the bag of small parts, one shelf too few, the cable that was not in the box, "
    "an incomplete set, the parts list, a lost key, the spare remote",
    "customs, an import duty, the declaration form, a parcel held at the border, the value of the goods, "
    "a foreign tax, papers for the customs office, the country of origin",
    "a forgotten password, the reset link, a login that fails, too many attempts, a new password, "
    "the reset mail that does not come, a locked login, the password rule",
    "the second factor, a code by text message, a new phone, the authenticator, backup codes, a lost token, "
    "a code that has expired, the security key",
    "a change of name, a married name, a typing mistake in the name, the profile's display name, "
    "a new passport, the title before the name, initials, the name on the contract",
    "closing the account, deletion of all data, the right to be forgotten, cancelling for good, "
    "the last day of the contract, an account of somebody who died, removal of the profile, a farewell",
    "the newsletter, too many mails, an unsubscribe link, advertising, the weekly digest, "
    "consent to mailings, the spam folder, a mail preference",
    "a crash, the app that closes by itself, a black screen, the start page that hangs, "
    "an error after the update, a frozen button, the crash report, the loading wheel",
    "a slow page, seconds of waiting, a search that takes long, the time-out message, "
    "the busy evening hours, lag while typing, a page that loads in parts, poor speed",
    "synchronising, notes that differ between devices, a calendar that is a day behind, the cloud copy, "
    "a conflict of versions, the last sync time, a file that is not on the tablet, offline changes",
    "the printer, a blank page, paper in the tray, the toner, a print job in the queue, wrong margins, "
    "two-sided printing, the driver for the printer",
    "no sound, the loudspeaker, a microphone that is mute, an echo in the call, the headset, "
    "volume that jumps, crackling, the audio setting",
    "the battery, a phone that gets hot, charging overnight, an empty battery by noon, the charger, "
    "the charging plug, battery health, power saving",
    "the wireless network, a weak signal, the router, a connection that drops, the guest network, "
    "the network's name, a channel that is crowded, the range upstairs",
    "the return window, thirty days, a gift that is sent back, the return label, unworn shoes, "
    "the original packing, a return after the deadline, the drop-off shop",
    "an exchange, another size, a different colour, a swap for the newer model, the same item again, "
    "stock of the other size, a shirt that is too small, an even exchange",
    "the warranty, a repair at no cost, the second year, proof of purchase, a fault that comes back, "
    "the service centre, wear and tear, a replacement device",
    "a used device, a refurbished phone, the previous owner, signs of use, the trade-in value, "
    "an older model, buying it second hand, the grade of the device",
    "personal data, who can see the profile, data shared with partners, a copy of all stored data, "
    "the privacy notice, tracking, location history, a data protection officer",
    "copyright, a picture used without asking, the author's name, a licence for the music, "
    "a takedown notice, quoting a book, the owner of the rights, fair use",
    "the contract terms, the notice period, a clause about renewal, the minimum term, the small print, "
    "a change of conditions, the place of jurisdiction, a signed copy",
    "a strange login, a mail that pretends to be the bank, a stolen card number, a purchase nobody made, "
    "a false website, a call that asks for the code, an unknown device, money sent to a stranger",
    "an insulting message, threats, a user who does not stop writing, a hateful comment, blocking somebody, a "
    "report of abuse, mocking a classmate, unwanted pictures",
    "an application for a job, the interview date, a letter of motivation, an open position, the references, "
    "a trainee's place, the starting date, the salary that is expected",
    "a journalist, an interview for the paper, a statement for the press, the spokesperson, "
    "a quote by tomorrow, a picture for print, a story about the company, the newsroom",
    "a partnership, a reseller, the margin for dealers, a common event, an integration with another product, "
    "the partner programme, a joint offer, a letter of intent",
    "the opening hours, Sundays, the lunch break, the holiday timetable, the shop in the station, "
    "late shopping, the hotline's hours, the counter on Saturday",
    "parking, the car park's ticket, a disabled bay, the barrier, a fine under the wiper, "
    "the underground garage, charging an electric car, the bicycle stand",
    "a booking, the table by the window, a room for two nights, a cancelled reservation, the booking number, "
    "check-in time, one guest more, a deposit for the room",
    "the seat, a place by the aisle, legroom, two seats together, the seat map, an upgrade, "
    "a reserved carriage, the row at the emergency exit",
    "lost luggage, a suitcase that did not arrive, the weight limit, hand baggage, a broken wheel, "
    "the baggage tag, the carousel, sports gear",
    "a vegetarian meal, an allergy to nuts, the children's menu, cold food, a meal that was ordered ahead, "
    "gluten, the drinks list, the breakfast buffet",
)
_OPENINGS = (
    "If the message is about {}",
    "When somebody writes about {}",
    "Where {} is what the text turns on",
    "If {} is named at the beginning",
    "When the writer complains about {}",
    "If the main point is {}",
    "Whenever {} comes up first",
    "If a question concerns {}",
)
_ASIDES = (
    " and also mentions {}",
    ", together with {}",
    " rather than {}",
    ", even if {} is mentioned in passing",
    " and asks what to do about {}",
    ", with {} as a detail",
    " and the last sentence returns to {}",
    ", whether or not {} is there",
)
_CIRCUMSTANCES = (
    "and no other department is asked for anything",
    "and the tone is polite but urgent",
    "and the text gives a date or a number",
    "and nothing in it points to a fault of somebody else",
    "although the first line speaks of something else",
    "and the writer has tried to solve it alone",
    "and the wish is put as a question",
    "even when the wording is angry",
    "and it is the second message on the same matter",
    "and the writer speaks for somebody else",
    "although some words are misspelt",
    "and there is a thank-you at the end",
)
_REASONS = (
    ", because {} decides who must act",
    ", since {} is what an answer must settle",
    ", as {} outweighs the rest of the text",
    ", because without {} there would be no message",
    ", since {} is the only thing that can be checked",
    ", because words about {} are never used for another matter",
    ", as {} says more than the greeting or the thanks",
    ", for {} is where the cost arises",
)
