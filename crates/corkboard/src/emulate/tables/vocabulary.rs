//! The words that titles, descriptions, tags and posters' names are made of.
//!
//! A `{slot}` in a template is filled by `text::fill`: `{topic}`, `{place}` and `{who}` from the
//! post's category, `{adj}`, `{a}` (an adjective with its article), `{season}` and `{n}` from
//! what is shared.

pub(super) struct Category {
    pub(super) name: &'static str,
    /// Its posts are those with `first_row <= index < end_row`.
    pub(super) first_row: usize,
    pub(super) end_row: usize,
    pub(super) topics: &'static [&'static str],
    pub(super) places: &'static [&'static str],
    pub(super) who: &'static [&'static str],
    /// Tags of the category as such.
    pub(super) tags: &'static [&'static str],
}

// Packed lines: one word per line would hide the shape of the list.
#[rustfmt::skip]
pub(super) const CATEGORIES: [Category; 13] = [
    Category {
        name: "art",
        first_row: 0,
        end_row: 892,
        topics: &[
            "Watercolor Landscape", "Charcoal Portrait", "Ink Drawing", "Abstract Canvas", "Line Art", "Clay Sculpture",
            "Botanical Sketch", "Acrylic Pour", "Paper Collage", "Gouache Still Life", "Street Mural", "Pastel Seascape",
            "Linocut Print", "Galaxy Painting", "Figure Drawing", "Stained Glass Panel", "Oil Pastel Study", "Doodle Journal",
        ],
        places: &["sketchbook", "studio wall", "kitchen table", "gallery corner", "classroom"],
        who: &["beginners", "young artists", "weekend painters", "art teachers", "collectors"],
        tags: &[
            "Art Inspiration", "Painting Techniques", "Drawing Lessons", "Art Sketches", "Canvas Art", "Mixed Media Art",
            "Contemporary Artists", "Art Tutorials", "Art Reference", "Color Theory", "Art Journaling", "Illustration",
        ],
    },
    Category {
        name: "beauty",
        first_row: 892,
        end_row: 1637,
        topics: &[
            "Skincare Routine", "Smoky Eye Look", "Gel Nail Design", "Hair Mask", "Brow Shape", "Lip Tint", "Curly Hair Care",
            "Night Cream", "Bridal Makeup", "Face Serum", "Braided Updo", "Lash Lift", "Bob Haircut", "Body Scrub",
            "Contour Trick", "Balayage Color", "Rosewater Toner", "Nail Art",
        ],
        places: &["bathroom shelf", "travel bag", "vanity", "salon chair", "spa evening"],
        who: &["dry skin", "busy mornings", "sensitive skin", "brides", "fine hair"],
        tags: &[
            "Beauty Hacks", "Skin Care Tips", "Makeup Looks", "Natural Beauty", "Hair Styles", "Nail Inspiration",
            "Healthy Hair", "Glowing Skin", "Makeup Tutorial", "Beauty Routine", "Clean Beauty", "Anti Aging",
        ],
    },
    Category {
        name: "christmas",
        first_row: 1637,
        end_row: 2637,
        topics: &[
            "Christmas Wreath", "Advent Calendar", "Gingerbread House", "Paper Snowflake", "Felt Ornament", "Tree Garland",
            "Stocking Filler", "Mantel Display", "Pinecone Craft", "Gift Wrap", "Sugar Cookie", "Door Hanger",
            "Candle Centerpiece", "Nativity Scene", "Snowman Craft", "Reindeer Card", "Mulled Cider", "Porch Lantern",
        ],
        places: &["front porch", "fireplace", "tree", "dining table", "hallway"],
        who: &["kids", "the whole family", "last-minute hosts", "grandparents", "neighbors"],
        tags: &[
            "Christmas Decor", "Holiday Crafts", "Xmas Ideas", "Christmas Traditions", "Winter Decorations", "Holiday Baking",
            "Christmas Gifts", "Festive Table", "Merry Christmas", "Farmhouse Christmas", "Christmas Trees", "Noel",
        ],
    },
    Category {
        name: "diy-and-crafts",
        first_row: 2637,
        end_row: 3467,
        topics: &[
            "Macrame Hanger", "Mason Jar Lamp", "Pallet Bench", "Beaded Bracelet", "Paper Flower", "Resin Coaster",
            "Sock Puppet", "Crochet Basket", "Fairy Garden", "Button Art", "Origami Crane", "Soap Mold", "Wind Chime",
            "Tie-Dye Shirt", "Bird Feeder", "Quilted Pouch", "Salt Dough Magnet", "Rope Bowl",
        ],
        places: &["garage", "craft room", "back garden", "rainy afternoon", "dollar store haul"],
        who: &["toddlers", "summer camps", "crafty teens", "seniors", "absolute beginners"],
        tags: &[
            "Diy Projects", "Crafts For Kids", "Upcycled Crafts", "Handmade Gifts", "Easy Diy", "Craft Tutorials",
            "Sewing Patterns", "Paper Crafts", "Dollar Tree Diy", "Yarn Crafts", "Crafts To Sell", "Recycling",
        ],
    },
    Category {
        name: "education",
        first_row: 3467,
        end_row: 4330,
        topics: &[
            "Phonics Game", "Math Worksheet", "Bulletin Board", "Reading Corner", "Science Experiment", "Lesson Plan",
            "Anchor Chart", "Sensory Bin", "Spelling Routine", "Vocabulary Wall", "Fractions Activity", "Essay Outline",
            "Morning Circle", "Book Report", "Study Schedule", "Classroom Library", "Alphabet Craft", "Geography Quiz",
        ],
        places: &["classroom", "home school", "library", "preschool", "Zoom lesson"],
        who: &["second graders", "new teachers", "homeschoolers", "exam students", "English learners"],
        tags: &[
            "Classroom Ideas", "Teaching Resources", "Learning Activities", "Early Childhood", "Kindergarten Learning",
            "Study Tips", "Teacher Tips", "Montessori", "Elementary School", "Reading Comprehension", "Stem Lessons",
            "Higher Education",
        ],
    },
    Category {
        name: "event-planning",
        first_row: 4330,
        end_row: 5077,
        topics: &[
            "Wedding Timeline", "Balloon Arch", "Seating Chart", "Baby Shower Menu", "Photo Booth", "Table Setting",
            "Party Favor", "Charity Gala", "Event Checklist", "Guest Book", "Dessert Bar", "Welcome Sign", "Garden Party",
            "Birthday Backdrop", "Corporate Retreat", "Flower Wall", "Vendor Contract", "Rehearsal Dinner",
        ],
        places: &["barn venue", "back yard", "rooftop", "hotel ballroom", "beach"],
        who: &["brides", "party hosts", "event planners", "small budgets", "fundraisers"],
        tags: &[
            "Event Planning Tips", "Wedding Planning", "Party Decorations", "Event Decor", "Event Design", "Planning Checklist",
            "Wedding Reception", "Fundraising Events", "Corporate Events", "Party Planner", "Event Business", "Celebration",
        ],
    },
    Category {
        name: "finance",
        first_row: 5077,
        end_row: 5864,
        topics: &[
            "Monthly Budget", "Savings Challenge", "Debt Payoff Plan", "Emergency Fund", "Side Hustle", "Retirement Account",
            "Credit Score", "Cash Envelope", "Tax Checklist", "Index Fund", "Passive Income", "Spending Tracker",
            "Frugal Habit", "Student Loan", "Net Worth Sheet", "Grocery Budget", "Dividend Portfolio", "Money Mindset",
        ],
        places: &["planner", "spreadsheet", "first apartment", "family meeting", "bank account"],
        who: &["millennials", "single parents", "freelancers", "newlyweds", "college students"],
        tags: &[
            "Personal Finance", "Money Saving Tips", "Financial Planning", "Budgeting Finances", "Make Money Online",
            "Investing", "Financial Freedom", "Finance Tips", "Money Management", "Debt Free", "Frugal Living",
            "Saving Strategies",
        ],
    },
    Category {
        name: "home-decor",
        first_row: 5864,
        end_row: 6725,
        topics: &[
            "Living Room", "Gallery Wall", "Farmhouse Kitchen", "Reading Nook", "Bedroom Makeover", "Entryway Bench",
            "Boho Rug", "Floating Shelf", "Coffee Table", "Bathroom Vanity", "Accent Wall", "Velvet Sofa", "Linen Curtain",
            "Pantry Shelf", "Patio Light", "Dining Nook", "Laundry Room", "Houseplant Corner",
        ],
        places: &["small apartment", "rental", "open plan home", "cottage", "loft"],
        who: &["renters", "first-time buyers", "tiny homes", "minimalists", "plant lovers"],
        tags: &[
            "Home Decor Ideas", "Interior Design", "Living Room Decor", "Bedroom Inspiration", "Modern Farmhouse",
            "Apartment Decor", "House Interior", "Boho Decor", "Home Living", "Rustic Decor", "Small Spaces", "Room Makeover",
        ],
    },
    Category {
        name: "mens-fashion",
        first_row: 6725,
        end_row: 7577,
        topics: &[
            "Denim Jacket", "Linen Suit", "Leather Boot", "Oxford Shirt", "Streetwear Fit", "Wool Overcoat", "Chino Outfit",
            "Knit Sweater", "Bomber Jacket", "Formal Tuxedo", "White Sneaker", "Capsule Wardrobe", "Fade Haircut",
            "Pocket Square", "Cargo Pant", "Polo Shirt", "Field Watch", "Double-Breasted Blazer",
        ],
        places: &["office", "date night", "city weekend", "summer wedding", "gym bag"],
        who: &["short men", "tall guys", "students", "grooms", "men over 40"],
        tags: &[
            "Mens Outfits", "Mens Style", "Street Style Men", "Mens Fashion Casual", "Menswear", "Gentleman Style",
            "Men Casual", "Mens Clothing Styles", "Suit And Tie", "Mens Fall Fashion", "Outfit Grid", "Dapper Men",
        ],
    },
    Category {
        name: "quotes",
        first_row: 7577,
        end_row: 8487,
        topics: &[
            "Life Lesson", "Friendship Quote", "Morning Affirmation", "Love Letter", "Funny Saying", "Strength Quote",
            "Healing Word", "Motivational Line", "Gratitude Note", "Self Love Reminder", "Wise Proverb", "Travel Quote",
            "Birthday Wish", "Breakup Quote", "Success Mantra", "Mother Daughter Quote", "Teamwork Quote", "Hope Quote",
        ],
        places: &["Monday morning", "bad day", "phone wallpaper", "journal", "graduation card"],
        who: &["best friends", "overthinkers", "strong women", "dreamers", "moms"],
        tags: &[
            "Inspirational Quotes", "Quotes To Live By", "Words Of Wisdom", "Positive Quotes", "Quote Of The Day",
            "True Quotes", "Meaningful Words", "Mood Quotes", "Motivation", "Encouragement", "Poems Beautiful", "Mindset",
        ],
    },
    Category {
        name: "tattoos",
        first_row: 8487,
        end_row: 9457,
        topics: &[
            "Fine Line Tattoo", "Forearm Sleeve", "Floral Tattoo", "Wolf Tattoo", "Minimalist Symbol", "Matching Tattoo",
            "Geometric Mandala", "Butterfly Tattoo", "Script Lettering", "Dragon Back Piece", "Compass Tattoo", "Moon Phase",
            "Traditional Anchor", "Realism Portrait", "Ankle Tattoo", "Phoenix Tattoo", "Blackwork Band", "Koi Tattoo",
        ],
        places: &["forearm", "shoulder blade", "ankle", "rib cage", "collarbone"],
        who: &["couples", "sisters", "first-timers", "men", "book lovers"],
        tags: &[
            "Tattoo Ideas", "Tattoo Designs", "Small Tattoos", "Tattoo Inspiration", "Sleeve Tattoos", "Tattoo Artists",
            "Meaningful Tattoos", "Body Art", "Ink", "Tattoos For Women", "Tattoos For Guys", "Tattoo Stencils",
        ],
    },
    Category {
        name: "travel",
        first_row: 9457,
        end_row: 10_316,
        topics: &[
            "Road Trip", "City Break", "Packing List", "Island Hopping", "Hiking Trail", "Hidden Beach", "Train Journey",
            "Food Tour", "Camping Weekend", "National Park", "Bucket List", "Budget Itinerary", "Solo Adventure", "Old Town Walk",
            "Ski Holiday", "Safari Guide", "Cruise Tip", "Waterfall Hike",
        ],
        places: &["Portugal", "Iceland", "Vietnam", "Patagonia", "Québec"],
        who: &["families", "solo travelers", "honeymooners", "backpackers", "digital nomads"],
        tags: &[
            "Travel Destinations", "Beautiful Places", "Travel Tips", "Places To Visit", "Travel Photography", "Wanderlust",
            "Vacation Spots", "Travel Guides", "Europe Travel", "Travel Inspiration", "Summer Travel", "Adventure Travel",
        ],
    },
    Category {
        name: "vehicles",
        first_row: 10_316,
        end_row: 11_154,
        topics: &[
            "Classic Muscle Car", "Camper Van", "Electric Truck", "Vintage Motorcycle", "Rally Car", "Off-Road Build",
            "Sports Coupe", "Cafe Racer", "Pickup Restoration", "Concept Car", "Station Wagon", "Armored Vehicle",
            "Convertible", "Fire Engine", "Hot Rod", "School Bus Conversion", "Racing Simulator", "Tiny Trailer",
        ],
        places: &["garage", "desert track", "car show", "open road", "auction"],
        who: &["gearheads", "van lifers", "collectors", "weekend mechanics", "first-car owners"],
        tags: &[
            "Dream Cars", "Cool Cars", "Car Photography", "Luxury Cars", "Custom Cars", "Army Vehicles", "Futuristic Cars",
            "4x4 Trucks", "Vintage Cars", "Car Design", "Motorcycles", "Concept Vehicles",
        ],
    },
];

#[rustfmt::skip]
pub(super) const ADJECTIVES: &[&str] = &[
    "Easy", "Stunning", "Simple", "Cozy", "Modern", "Vintage", "Unique", "Gorgeous", "Budget", "Elegant", "Clever", "Rustic",
    "Bold", "Tiny", "Timeless", "Quick", "Dreamy", "Colorful", "Minimal", "Creative", "Classic", "Playful", "Perfect", "Fresh",
];

pub(super) const SEASONS: &[&str] =
    &["Spring", "Summer", "Autumn", "Winter", "2018", "2019", "2020", "2021", "2022", "Weekend", "Holiday"];

pub(super) const TITLES: &[&str] = &[
    "{topic}",
    "{adj} {topic}",
    "{n} {adj} {topic} Ideas",
    "{adj} {topic} Ideas for {who}",
    "How to Make {a} {topic}",
    "The {adj} {topic} Guide for {who}",
    "{n} {topic} Ideas for Your {place}",
    "{topic} and {topic} for the {place}",
    "{n} {adj} {topic} Ideas You’ll Want to Try This {season}",
    "{adj} {topic} - {season} Inspiration",
    "{topic} Inspiration: {adj} Ideas for {who}",
    "The Best {topic} Tips for {who} in {season}",
    "{n} Ways to Get {a} {topic} on a Budget",
    "{adj} {topic} & {topic} | {season} Edition",
    "My {adj} {topic} from Start to Finish",
    "Why {who} Love This {adj} {topic}",
    "Before & After: {a} {topic}",
    "{topic} Ideas: {n} {adj} Looks for Your {place} That Anyone Can Copy in a Single Afternoon",
    "{n} {adj} {topic} Ideas – The Ultimate List for {who} Who Want Something Different, from {topic} to {topic} and Everything In Between",
    "\"{adj} {topic}\" in the {place}",
];

pub(super) const SENTENCES: &[&str] = &[
    "Looking for {a} {topic}?",
    "Here are {n} {adj} ideas for {who} that you can try this {season}.",
    "This {topic} is easy and perfect for your {place}.",
    "Save this pin for later and share it with {who}.",
    "We love how the {topic} turned out, and it only took {n} minutes.",
    "Discover {adj} {topic} ideas, tips and inspiration on the blog.",
    "It’s the {topic} everybody in our {place} has been talking about.",
    "Everything you need to know about the {topic}, from the first step to the last detail.",
    "No experience needed: {who} will get it right the first time.",
    "Find the full list with photos, prices and links here.",
    "One more way to bring some {season} mood into the {place}.",
    "Don’t miss number {n} on the list, it’s our favorite!",
    "Click through to read more about this {adj} {topic} and how we made it work for {who}.",
    "Free printable included.",
    "Made with love, shipped worldwide.",
    "The {topic} meets the {topic}: see what happens.",
    "{adj} today, timeless tomorrow and never boring.",
    "#{n} will surprise {who}…",
    "“{adj} is the new {adj}”, say {who}.",
    "They call it \"{topic}\", we call it {adj}.",
    "Photo by the author, all rights reserved © {n}.",
];

/// Titles and descriptions of posts that are not in English.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    (
        "手作りの小さな贈り物",
        "家族や友だちに喜ばれる、簡単でかわいい手作りのアイデアを集めました。週末にゆっくり楽しんでください。",
    ),
    ("週末の小さな旅", "電車で行ける静かな町を歩いてきました。おすすめの店と道順をまとめています。"),
    (
        "Идеи для уютного дома",
        "Простые и красивые идеи, которые легко повторить своими руками. Сохраните, чтобы не потерять!",
    ),
    (
        "Рисуем акварелью шаг за шагом",
        "Подробный урок для начинающих: материалы, смешивание цветов и маленькие хитрости.",
    ),
    ("أفكار بسيطة وجميلة", "مجموعة من الأفكار السهلة التي يمكن تنفيذها في المنزل خلال عطلة نهاية الأسبوع."),
    ("رحلة إلى الجبال", "دليل قصير لأجمل الطرق والأماكن التي زرناها هذا العام."),
    (
        "주말에 만드는 작은 선물",
        "집에 있는 재료로 쉽게 만들 수 있는 아이디어를 모았습니다. 저장해 두고 천천히 따라 해 보세요.",
    ),
    ("简单又好看的手工", "在家就能完成的创意,适合全家人一起动手。步骤和材料都写在文章里。"),
    ("Όμορφες ιδέες για το σπίτι", "Απλές λύσεις με υλικά που έχετε ήδη, βήμα βήμα και με φωτογραφίες."),
    ("घर के लिए आसान विचार", "कम खर्च में घर को सुंदर बनाने के तरीके, चरण दर चरण।"),
    ("רעיונות קטנים לבית", "כמה רעיונות פשוטים ויפים שאפשר להכין בסוף השבוע."),
    ("ไอเดียแต่งบ้านง่าย ๆ", "รวมไอเดียสวย ๆ ที่ทำเองได้ในวันหยุด พร้อมรูปทุกขั้นตอน"),
    (
        "Ideas sencillas para la casa de los niños",
        "Manualidades rápidas y económicas para pequeños y mayores. ¡Guárdalas y compártelas con quien más quieras este año!",
    ),
    (
        "Façons créatives de décorer l’été",
        "Découvrez des idées à réaliser soi-même, avec très peu de matériel et beaucoup de goût.",
    ),
    (
        "Schöne Ideen für gemütliche Räume",
        "Kleine Veränderungen, große Wirkung: so wird es auch in der Mietwohnung gemütlich. Überall nachzumachen.",
    ),
    (
        "Inspiração para uma manhã tranquila",
        "Sugestões fáceis de seguir, com fotografias e lista de materiais. Não é preciso experiência.",
    ),
    ("Küçük bahçeler için öneriler", "Dar alanlarda uygulanabilecek, bütçe dostu ve şık çözümler bir arada."),
    ("Pomysły na długi weekend", "Łatwe i tanie inspiracje, które możesz wykonać w jeden wieczór z przyjaciółmi."),
];

pub(super) const EMOJI: &[&str] = &["✨", "🎄", "❤️", "🌿", "😍", "🔥", "👩‍🎨", "🚐", "💰", "🏡", "🎉", "🌍"];

/// How posters call themselves; beside the slots above, `{first}` and `{last}` are a name.
pub(super) const POSTERS: &[&str] = &[
    "{first} {last}",
    "{first} {last}",
    "{first} {last}",
    "{first} {last}",
    "{first} {last}",
    "{first}{last}",
    "{first}{last}{n}",
    "{last}{n}",
    "{first}'s {topic}",
    "The {adj} {topic}",
    "{adj} {topic} Co.",
    "{topic} by {first}",
    "{first} {last} Design",
    "{adj}{last}Shop",
    "{last} & {first}",
    "{first} {last} | {topic} Blog",
    "{first} {last} | {topic} Tips & {topic} Ideas",
    "The {adj} {last} | {topic}, {topic}, {topic}",
    "{first} {last} // {topic} + {topic} for {who}",
];

/// Rare ways, one in a few dozen.
pub(super) const ODD_POSTERS: &[&str] = &[
    "{{first} {last}}",
    "Café {last}",
    "{first} {last} ✨",
    "🌿 {adj} {topic} 🌿",
    "Atelier {last} – Zoë & {first}",
    "{last}の{topic}",
    "{first} {last} | {topic} Coach, {topic} Ideas and {adj} {topic} Lists",
];
